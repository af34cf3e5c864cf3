"""The environment of a run: servers, the mail sink, rows, databases with a history, sizes."""
