"""A virtual environment with what requirements.lock names and nothing else: the project is not installed in it.

It is made of links to the installed files, so that it takes no index and no seconds. Their versions are the lock's,
since requirements-dev.lock repeats it.
"""

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.programs.processes import ROOT

_REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+==[^\\\n]+", re.MULTILINE)
_SCRIPT = """#!{python}
import sys
from importlib import import_module
sys.exit(getattr(import_module({module!r}), {attribute!r})())
"""


def make_locked_environment(folder: Path) -> Path:
    """Make the environment and return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for line in _REQUIREMENT.findall((ROOT / "requirements.lock").read_text()):
        locked = Requirement(line)
        if locked.marker is not None and not locked.marker.evaluate():
            continue
        installed = distribution(locked.name)
        assert installed.version in locked.specifier, f"{locked} is locked, and {installed.version} is here"
        _link(installed, packages)
        _write_scripts(installed, folder / "bin")
    return folder / "bin"


def _link(installed: Distribution, packages: Path) -> None:
    parts = {file.parts[0] for file in installed.files or () if file.parts[0] not in {"..", "__pycache__"}}
    for part in parts:
        link = packages / part
        if not link.exists():
            link.symlink_to(Path(str(installed.locate_file(part))))


def _write_scripts(installed: Distribution, programs: Path) -> None:
    for entry in installed.entry_points.select(group="console_scripts"):
        script = programs / entry.name
        script.write_text(
            _SCRIPT.format(python=programs / "python", module=entry.module, attribute=entry.attr.split(".")[0])
        )
        script.chmod(0o755)
