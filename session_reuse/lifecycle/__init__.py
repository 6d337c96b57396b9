"""The life of a session: enter, save, wait for the store, leave. Decisions are pure; what they need is passed in."""
