"""schemathesis against the running API, from the API's own OpenAPI document, with all its checks on.

`python -m tests.fuzz --examples 1000` is the long form; the suite does 100 of each operation.
"""
