"""One trial from its engine's start to its result, and the proof that it measured what it says."""
