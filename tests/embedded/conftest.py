"""A folder for the embedded servers that these tests start."""

import secrets
from pathlib import Path

import pytest


@pytest.fixture
def folder(server_folder: Path) -> Path:
    """A folder that PostgreSQL's account may enter."""
    made = server_folder / secrets.token_hex(4)
    made.mkdir(mode=0o755)
    return made
