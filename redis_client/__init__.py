"""Redis clients for relay and worker, with the same errors and deadlines for one server and behind Sentinel.

It imports only `shared`. The API and `shared` cannot import it: a signup never depends on Redis.
"""
