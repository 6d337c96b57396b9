"""The commands of `session-reuse`, one small module each."""
