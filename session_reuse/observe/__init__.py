"""Metrics, logs and traces: what happened, never what was in it."""
