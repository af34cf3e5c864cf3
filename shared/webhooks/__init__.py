"""Webhooks: events that are sent to other services' endpoints, signed as Standard Webhooks asks.

The API writes one message per endpoint and event, operators manage the endpoints, and the consumer delivers.
"""
