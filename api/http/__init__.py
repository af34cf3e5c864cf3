"""What every request and answer has, whatever its route: problems, bodies, request ids, logs, traces, headers."""
