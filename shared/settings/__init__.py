"""The settings of each process, read once from the environment."""
