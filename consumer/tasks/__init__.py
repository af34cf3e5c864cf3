"""The tasks of this service, one module each. consumer.tasks.registry lists them."""
