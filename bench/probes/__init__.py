"""The same things done to esource and to its peers, and what became of the events: counts, not speed."""
