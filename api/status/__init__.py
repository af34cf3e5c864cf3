"""What supervisors and monitoring ask: /healthz, /readyz and /metrics."""
