"""Which trials a study consists of, which of them are refused, and which are still to be run."""
