"""Certificates that vouch for themselves, made with openssl."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def write_certificate(folder: Path, name: str, san: str) -> Path:
    """Write `name`.pem and `name`.key for a subject alternative name such as `DNS:example.com`; return the former."""
    openssl = shutil.which("openssl")
    if openssl is None:
        # As for the servers: a laptop may do without, the suite that judges may not.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no openssl on the PATH")
    extensions = (f"subjectAltName={san}", "keyUsage=critical,digitalSignature,keyCertSign")
    subprocess.run(
        [
            *[openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            *["-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            *[part for extension in extensions for part in ("-addext", extension)],
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / f"{name}.pem"
