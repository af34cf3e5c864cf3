"""`python -m tests.fuzz`: the long form, against an API and a PostgreSQL that it starts itself."""

import secrets
import sys
import tempfile
from pathlib import Path

import click

from embedded.programs.accounts import unprivileged_account
from embedded.stack import Stack
from tests.fuzz.running import failures, fuzz, usable_link, usable_token


@click.command(help=__doc__)
@click.option("--examples", type=click.IntRange(1), default=1000, show_default=True, help="Requests of each operation.")
@click.option("--seed", type=int, help="Repeats a run.  [default: a new one, which is printed]")
def main(examples: int, seed: int | None) -> None:
    seed = secrets.randbits(31) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="outbox-fuzz-") as name:
        folder = Path(name)
        if unprivileged_account() is not None:
            folder.chmod(0o711)
        secret_key = secrets.token_urlsafe(48)
        stack = Stack(folder / "stack", secret_key=secret_key)
        try:
            stack.start_postgres()
            stack.start_api()
            link, token = (make(stack.database_url, secret_key) for make in (usable_link, usable_token))
            done = fuzz(stack.api_url, folder, link, token, examples=examples, seed=seed)
        finally:
            stack.stop()
            stack.postgres.remove()
        failed = failures(stack.api.command.log_file.read_text())
    click.echo(done.stdout)
    click.echo("\n".join(failed) or "The API's log shows no failure.")
    sys.exit(done.returncode or bool(failed))


if __name__ == "__main__":
    main()
