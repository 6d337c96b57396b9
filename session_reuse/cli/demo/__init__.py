"""`session-reuse demo`: agents that log in once and come back logged in, also after their Redis was killed.

Must never touch a process it did not start, nor reach beyond loopback.
"""
