"""The loop of a study: ask, check, place, submit, collect, store, report."""
