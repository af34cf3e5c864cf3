"""The Dockerfile: what the image holds, as whom it runs, and that all of it is pinned."""

import re

from embedded.stack import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def sources(instruction: str) -> set[str]:
    """Return what the Dockerfile copies out of the project."""
    lines = re.findall(rf"(?m)^{instruction} (?!--from)(.+)$", DOCKERFILE)
    return {word for line in lines for word in line.split()[:-1]}


def test_the_python_image_is_pinned_to_a_full_version() -> None:
    images = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE)

    assert len(images) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", images[0])


def test_the_image_does_not_run_as_root() -> None:
    user = re.findall(r"(?m)^USER (.+)$", DOCKERFILE)[-1]

    assert user.partition(":")[0] not in {"0", "root"}


def test_the_image_holds_everything_that_the_product_needs() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "embedded", "bench"}

    assert packages == {"api", "outbox_relay", "consumer", "redis_client", "shared"}
    assert sources("COPY") == {
        *packages,
        "migrations",
        "alembic.ini",
        "gunicorn.conf.py",
        "schema.sql",
        "requirements.lock",
    }
    assert [name for name in sources("COPY") if not (ROOT / name).exists()] == []


def test_nothing_else_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    let_in = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}

    assert patterns[0] == "*"
    assert let_in == sources("COPY")


def test_the_image_gets_locked_packages_alone() -> None:
    install = re.findall(r" install (?:\\\n|.)*", DOCKERFILE)

    assert len(install) == 1
    assert [option for option in ("--require-hashes", "--only-binary :all:") if option not in install[0]] == []
