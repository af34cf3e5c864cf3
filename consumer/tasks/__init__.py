"""One module for each task; consumer.registry lists them."""
