"""Models: what their config.json says, whether they fit into memory, and a tiny one made on the spot."""
