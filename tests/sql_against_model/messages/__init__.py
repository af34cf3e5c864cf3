"""What relay, consumers and operator do to messages, against the model of messages/."""
