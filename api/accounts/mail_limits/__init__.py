"""How many verification mails a mailbox, a recipient domain and the whole service may get."""
