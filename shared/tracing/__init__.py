"""Traces with OpenTelemetry, from a request to its mail; off by default."""
