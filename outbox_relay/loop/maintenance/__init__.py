"""Deletions by age, one bounded step at a time: history, old records of mails, unverified accounts."""
