"""Agents of any kind and language in a Chromium that a session was restored into."""
