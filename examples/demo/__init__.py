"""The demo: agents log in once and come back logged in, also after their Redis was killed."""
