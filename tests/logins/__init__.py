"""Logins before and around their reuse: lend, know, keep and choose them."""
