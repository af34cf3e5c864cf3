"""The processes that the bench starts and watches."""
