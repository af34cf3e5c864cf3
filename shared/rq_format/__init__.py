"""What a message looks like to RQ: its job's id, and the hash that is written and read."""
