"""The state itself: its shape, its merge, its health and its stored form. Never talks to a store or a browser."""
