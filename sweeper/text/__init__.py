"""Text that people read: without secrets and control characters, in words for durations, on a closed pipe."""
