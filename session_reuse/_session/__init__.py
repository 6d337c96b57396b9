"""The life of a session: enter, save, exit, and changes that wait for the store."""
