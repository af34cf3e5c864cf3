"""The steps of one message, in order: claim, prepare, send, record. processor.py runs them one after the other."""
