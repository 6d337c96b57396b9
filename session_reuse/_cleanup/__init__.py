"""Remove what expired sessions leave behind: affinity entries, index entries. Events are hints, the index is the truth."""
