"""Tests in a browser: headless Chromium against the whole service.

They go through every page as a person does, and take the pictures of docs/images.
"""
