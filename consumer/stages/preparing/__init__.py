"""How tasks prepare messages: the transaction, its retries, and the acknowledgement inside it."""
