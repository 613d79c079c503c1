"""Processes of this machine: who is alive, who listens, and how to start and end one with its descendants."""
