"""Limit how many verification mails a mailbox, a recipient domain and the whole service get."""
