"""Servers that a developer names in TEST_DATABASE_URL and TEST_REDIS_URL. Tests never stop them."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from embedded.servers.databases import Databases
from embedded.servers.postgres_files import binaries


class GivenPostgres(Databases):
    """A PostgreSQL at an address; the tests only make and drop databases of their own."""

    def __init__(self, url: str) -> None:
        _, colon, rest = url.partition(":")
        self._url = f"postgresql{colon}{rest}"

    @property
    def psql_path(self) -> Path:
        on_path = shutil.which("psql")
        return Path(on_path) if on_path else binaries() / "psql"

    def url(self, dbname: str | None = None) -> str:
        if dbname is None:
            return self._url
        return urlsplit(self._url)._replace(path=f"/{dbname}").geturl()
