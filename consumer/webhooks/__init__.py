"""Sends webhooks: the check of addresses, the HTTP client, and what an endpoint's answer means.

An endpoint is somebody else's server, and its name may lead anywhere. The client connects to the very address that it
has checked, follows no redirect, and spends a limited time and amount of memory on an answer.
"""
