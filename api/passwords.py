"""Hashing passwords: argon2id with the first choice of OWASP's cheat sheet."""

from typing import Final

from argon2 import PasswordHasher

# 19 MiB, two passes, one lane: about 20 ms of CPU. The library's defaults take five times as long.
_HASHER: Final = PasswordHasher(memory_cost=19 * 1024, time_cost=2, parallelism=1)


def hash_password(password: str) -> str:
    """Give the text that the password can be checked against: algorithm, parameters, salt and hash."""
    return _HASHER.hash(password)
