"""Write and read files that only this user may read."""

import os
import secrets
from pathlib import Path

from embedded.errors import EmbeddedError


def new_secret() -> str:
    """Return a random text of 256 bits that needs no escaping in a URL."""
    return secrets.token_urlsafe(32)


def write_private(file: Path, text: str) -> None:
    """Write a file that no other user can ever read. It appears under its name completely or not at all."""
    made = file.with_name(f"{file.name}.part")
    made.unlink(missing_ok=True)
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
        written.write(text)
    made.rename(file)


def kept_secret(file: Path) -> str:
    """Return the secret in the file. The first call creates it.

    Raises:
        EmbeddedError: the file is empty.

    """
    if not file.exists():
        write_private(file, new_secret())
    secret = file.read_text().strip()
    if not secret:
        raise EmbeddedError(f"{file} is empty: delete it to create a new key (links in old mails then become invalid)")
    return secret
