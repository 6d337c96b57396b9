"""Browsers and clients: how a session gets into them and back out."""
