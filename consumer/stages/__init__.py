"""The stages of a message in the consumer: claim, prepare, send, record."""
