"""Reaping: published messages whose lease is over, or whose Redis lost its data."""
