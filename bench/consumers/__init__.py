"""Consumers of the peers, as their users write them: claim in SQL, send with smtplib, acknowledge in SQL."""
