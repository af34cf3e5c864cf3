"""deploy/compose/write-digests.sh, asked of a registry of images."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from embedded.stack import ROOT
from tests.compose_proof.engine import Engine
from tests.compose_proof.stand_ins import named_images
from tests.waiting import wait_until

REGISTRY = "127.0.0.1:5000"
BUILT = ("api", "api-overlap", "relay", "schema", "worker")


def is_pushed(engine: Engine, image: str) -> bool:
    return engine.docker("push", f"{REGISTRY}/{image}", check=False).returncode == 0


@pytest.fixture
def digests(engine: Engine) -> Iterator[dict[str, str]]:
    """A registry with the images that the project asks for; their digests, by the stand-in's folder."""
    registry = engine.docker("run", "--detach", "--network=host", "compose-proof/registry").stdout.strip()
    pushed = {}
    try:
        for folder, image in named_images().items():
            engine.docker("tag", image, f"{REGISTRY}/{image}")
            wait_until(
                partial(is_pushed, engine, image),
                120,
                f"the registry to take {image}",
            )
            inspect = ["image", "inspect", "--format", "{{index .RepoDigests 0}}", f"{REGISTRY}/{image}"]
            pushed[folder] = engine.docker(*inspect).stdout.strip().partition("@")[2]
        yield pushed
    finally:
        engine.docker("rm", "--force", "--volumes", registry)


def test_the_override_file_has_the_digests_of_the_registry(
    engine: Engine, digests: dict[str, str], tmp_path: Path
) -> None:
    images = {folder: f"{REGISTRY}/{image}" for folder, image in named_images().items()}
    for name in ("compose.yaml", "Dockerfile"):
        text = (ROOT / name).read_text()
        for folder, image in named_images().items():
            text = text.replace(image, images[folder])
        (tmp_path / name).write_text(text)
    script = tmp_path / "deploy" / "compose" / "write-digests.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "compose" / "write-digests.sh", script)

    with engine.network():
        subprocess.run([script], env=engine.environment, check=True)

    override: dict[str, Any] = YAML(typ="safe").load(tmp_path / "compose.digests.yaml")
    pinned = {folder: f"{images[folder]}@{digests[folder]}" for folder in images}
    assert override["services"] == {
        **{name: {"image": pinned[name]} for name in ("postgres", "redis", "mailpit")},
        **{name: {"build": {"args": {"PYTHON_IMAGE": pinned["python"]}}} for name in BUILT},
    }
    for reference in pinned.values():
        engine.docker("pull", "--quiet", reference)
    files: list[str | Path] = ["--file", tmp_path / "compose.yaml", "--file", tmp_path / "compose.digests.yaml"]
    secrets = dict.fromkeys(("SECRET_KEY", "POSTGRES_PASSWORD", "MAIL_FROM"), "x" * 64)
    config = engine.docker("compose", *files, "--profile", "overlap", "config", variables=secrets).stdout
    assert [reference for reference in pinned.values() if reference not in config] == []
