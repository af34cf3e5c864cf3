"""One module for each task; consumer.tasks.registry lists them."""
