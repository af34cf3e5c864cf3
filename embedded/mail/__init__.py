"""A mail server that keeps every mail instead of delivering it, and a page that shows the mails."""
