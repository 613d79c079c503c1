"""The program's exit codes; the package's docstring says when each is used."""

OK, SOME_FAILED, MISTAKE, NOTHING_COMPLETE, AT_RISK = 0, 1, 2, 3, 4

STOPPED = 128
"""Base of the codes after a signal: the signal's number is added, as shells do."""
