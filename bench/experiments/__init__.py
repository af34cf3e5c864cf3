"""The experiments, one module for each part of the service."""
