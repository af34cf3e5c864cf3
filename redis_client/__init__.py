"""How relay and worker reach Redis: one rule for errors and deadlines, with one server or behind Sentinel.

It imports `shared` alone. The API, and `shared` itself, cannot import it: a signup never depends on Redis.
"""
