"""Metrics, log events and spans, behind one guard: their errors do not reach the agent."""

from session_reuse._telemetry.logs import Event, log
from session_reuse._telemetry.metrics import Operation
from session_reuse._telemetry.store_health import StoreHealth, health_of
from session_reuse._telemetry.telemetry import Counts, Telemetry

__all__ = ["Counts", "Event", "Operation", "StoreHealth", "Telemetry", "health_of", "log"]
