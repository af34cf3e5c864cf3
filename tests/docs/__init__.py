"""The documents: their links, and the commands and answers that they print."""
