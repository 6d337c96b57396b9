"""What attackers may not get: in by the values they write, or secrets out by any way."""
