"""Tests of the declarations of engines, clients, datasets and search methods."""
