"""What all requests share, whatever their route: problems, bodies, request ids, logs, traces and headers."""
