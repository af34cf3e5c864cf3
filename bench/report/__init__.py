"""What the bench shows and writes: the terminal's tables, the document, the plots."""
