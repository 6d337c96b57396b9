"""The tests of session_reuse."""
