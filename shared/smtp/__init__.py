"""SMTP for worker and doctor: log in, and read replies."""
