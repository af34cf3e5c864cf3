"""A program of Debian and its shared libraries, unpacked into a folder that can be the root of its processes."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PACKAGE: Final = "exim4-daemon-light"

_NEEDED: Final = re.compile(r"^ *(?:Pre)?Depends: (lib[^\s<>]+)$", re.MULTILINE)
_TOOLS: Final = ("apt-get", "apt-cache", "dpkg-deb")


def missing() -> list[str]:
    """Return the reasons why nothing can be unpacked here."""
    return [f"no {tool}: packages come from Debian's archive" for tool in _TOOLS if shutil.which(tool) is None]


def unpack(package: str, root: Path) -> None:
    """Download the package and the libraries that it needs, and unpack them into the folder. Nothing is installed.

    Raises:
        subprocess.CalledProcessError: a package could not be had; what apt-get says is in its stderr.

    """
    downloads = root / "debs"
    downloads.mkdir(parents=True)
    # As root, apt would become another user, who may not write here.
    command = ["apt-get", "--quiet", "--quiet", "--option", "APT::Sandbox::User=root", "download"]
    _run([*command, *sorted(_with_libraries(package))], downloads)
    for file in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(file), str(root)], downloads)
    shutil.rmtree(downloads)


def _with_libraries(package: str) -> set[str]:
    found: set[str] = set()
    news = {package}
    while news:
        found |= news
        news = set(_NEEDED.findall(_run(["apt-cache", "depends", *_ordered(news)], Path("/")))) - found
    return found


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names)


def _run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout
