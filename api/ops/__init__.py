"""The console at /ops: one page for whoever looks after the service. There is none unless OPS_TOKEN is set.

It reads PostgreSQL alone. What it does is what the commands `retry` and `discard` do; nothing else is changed.
"""
