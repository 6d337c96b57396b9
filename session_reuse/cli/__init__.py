"""The command line `session-reuse`, one small module per command."""
