"""The command line `session-reuse`, one small module per command. Must never be imported by the rest of the package."""
