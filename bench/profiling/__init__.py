"""Profile relay and worker by sampling."""
