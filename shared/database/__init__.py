"""Connections to PostgreSQL and their transactions."""
