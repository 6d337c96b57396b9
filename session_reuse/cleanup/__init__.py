"""Removing what expired sessions leave behind: events are hints, the index of deadlines is the truth."""
