"""A deterministic simulator: the real client code, a simulated Redis, virtual time, one seed for each history."""
