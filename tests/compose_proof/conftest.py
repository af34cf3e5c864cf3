"""The Docker engine, and the project's files as in a fresh clone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.stack import ROOT
from tests.compose_proof import stand_ins
from tests.compose_proof.engine import Engine, missing

FOLDER = ROOT / ".compose-proof"
UNREADABLE_FOR_OTHERS = 0o077


@pytest.fixture(scope="session")
def engine(project: Path) -> Iterator[Engine]:
    """A running engine that has all images; its network leads nowhere."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    FOLDER.mkdir(exist_ok=True)
    engine = Engine(FOLDER)
    engine.unpack()
    with engine.running(own_network=False):
        stand_ins.build(engine, project)
    with engine.running(own_network=True):
        yield engine


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose files nobody else may read, as under umask 077."""
    folder = tmp_path_factory.mktemp("clone") / "outbox-signup"
    before = os.umask(UNREADABLE_FOR_OTHERS)
    try:
        folder.mkdir()
        for name in ("compose.yaml", "Dockerfile", ".dockerignore", *copied_into_the_image()):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(ROOT / name, folder / name)
    finally:
        os.umask(before)
    return folder


def copied_into_the_image() -> list[str]:
    """Return the names that .dockerignore lets in."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]
