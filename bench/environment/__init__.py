"""What everything is measured on: servers, the mail sink, rows, databases with a history, sizes."""
