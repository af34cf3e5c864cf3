"""Endpoints for supervisors and monitoring: /healthz, /readyz and /metrics."""
