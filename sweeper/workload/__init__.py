"""What is sent to an engine: requests, recorded conversations, and the search for the highest rate."""
