"""`persist_session`, and the names that it computes from a call."""
