"""`session-reuse doctor`: what is right and wrong with a store and this machine. Must never change anything."""
