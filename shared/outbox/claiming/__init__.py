"""What a worker does to the messages that it claims: the statements between a claim and its end."""
