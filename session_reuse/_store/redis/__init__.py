"""Sessions in Redis: standalone, Sentinel, Cluster."""
