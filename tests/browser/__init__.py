"""A person with a browser: headless Chromium against the whole service.

`make screenshots` writes docs/images anew from the same walk.
"""
