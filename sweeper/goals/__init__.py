"""What is better, which bounds must be kept, and when a trial or a study has seen enough."""
