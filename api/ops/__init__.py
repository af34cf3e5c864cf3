"""The operators' console at /ops. It exists only if OPS_TOKEN is set.

It reads only PostgreSQL, and changes only what the commands `retry` and `discard` change.
"""
