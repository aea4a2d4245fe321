"""From an event to a row of the log, and back."""
