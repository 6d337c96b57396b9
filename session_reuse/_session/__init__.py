"""The life of a session: what an agent enters with, what is saved, what waits for the store."""
