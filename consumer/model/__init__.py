"""A message while the consumer works on it: the claim, its lease, the mail, the outcome and the result."""
