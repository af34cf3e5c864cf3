"""What worker and doctor share of SMTP: logging in, and reading replies."""
