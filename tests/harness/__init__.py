"""Start, break and end the real servers and networks of the tests."""
