"""Publishing: what a batch takes and does, and where the next one begins."""
