"""The steps of the consumer with many messages at once: a problem of one message does not affect the others."""
