"""What stands between a caller and a store in trouble: deadline, retry, breaker, saves that wait."""
