"""What outcomes change in PostgreSQL; consumer/stages/record.py writes them."""
