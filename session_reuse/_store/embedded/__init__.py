"""A private redis-server for users who run none."""
