"""Handing a mail in: what each answer, silence and accident of a mail server means for the message."""
