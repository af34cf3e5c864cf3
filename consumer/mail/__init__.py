"""Composing a mail, and handing it to the mail server over SMTP."""
