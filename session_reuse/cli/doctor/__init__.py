"""`session-reuse doctor`: whether an agent would work with this store and this machine, and what to do if not."""
