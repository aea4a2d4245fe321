"""Appending to the log and reading it, in its one order."""
