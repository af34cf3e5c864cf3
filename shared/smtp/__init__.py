"""SMTP for worker and doctor: the login, and the reading of replies."""
