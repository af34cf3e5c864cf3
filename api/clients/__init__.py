"""Who a client is behind proxies, and how often one client may ask."""
