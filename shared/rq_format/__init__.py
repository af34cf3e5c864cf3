"""The format of an RQ job for a message: the names of ids and keys, what the relay writes, what a worker reads."""
