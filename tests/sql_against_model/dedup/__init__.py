"""Dedup keys, against the model of dedup/."""
