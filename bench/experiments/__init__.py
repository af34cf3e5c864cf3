"""What is compared: each module gives the experiments of one part of the service."""
