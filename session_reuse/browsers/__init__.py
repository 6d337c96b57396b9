"""Browsers and clients: how a session gets into them and back out. Must never import one that its user does not use."""
