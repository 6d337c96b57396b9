"""Where sessions live: the connection to Redis, its keys and scripts, and the private server when there is none."""
