"""The engine behind `session_reuse.browsers`: restore by init script, capture by a mirror."""
