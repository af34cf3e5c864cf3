"""What the consumer knows of a message in hand: the claim, its lease, the outcome, the result."""
