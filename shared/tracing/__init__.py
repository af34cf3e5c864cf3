"""Traces: from a request, through the message that it left in the outbox, to the mail."""
