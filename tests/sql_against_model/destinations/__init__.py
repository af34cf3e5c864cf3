"""Destinations, against the model of destinations/."""
