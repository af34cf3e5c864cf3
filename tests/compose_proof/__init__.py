"""`make compose-proof`: compose.yaml and the Kubernetes containers on a Docker engine, without a registry of images.

The engine and the images it needs are built from Debian's packages and PyPI. The engine runs in namespaces of its own:
its network leads nowhere, and everything in it ends with its first process. The files are called `proof_*.py`, so that
`make test` does not collect them.
"""
