"""A mail server that delivers nothing and keeps everything, with a page that shows the mails."""
