"""Folders that the unprivileged account can reach. Permissions of existing folders never change."""

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from embedded.errors import NoUsableFolderError
from embedded.programs.accounts import Account, may_enter

ELSEWHERE_NOTE = "postgres-data-is-elsewhere.txt"

DATA_PARENTS = (Path("/var/lib"), Path("/var/tmp"), Path(tempfile.gettempdir()))  # noqa: S108  # see _accept
"""Data must not vanish, as temporary folders do, so those come last."""


def cache_folder(account: Account | None, parents: Sequence[Path] | None = None) -> Path:
    """Return the folder for what can be made again: only we may write to it, and the account may enter it.

    Args:
        account: who has to enter it; None for this process's own account.
        parents: where it may be, the first choice first; None for the usual places.

    Raises:
        NoUsableFolderError: none of them can hold such a folder.

    """
    if parents is None:
        parents = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/var/cache")]  # noqa: S108  # see _accept
    if account is not None:
        # Root's copy of the programs runs from there.
        parents = [parent for parent in parents if not _forbids_programs(parent)]
    return _own_folder(parents, account)


def data_folder(folder: Path, account: Account | None, parents: Sequence[Path] = DATA_PARENTS) -> Path:
    """Return where the data of the server in `folder` is: below it, or elsewhere if the account may not enter it.

    A text file in `folder` then says where. The next call reads it, so that a folder that was moved keeps its data.

    Args:
        folder: the server's folder.
        account: who has to reach the data; None for this process's own account.
        parents: where "elsewhere" may be, the first choice first.

    Raises:
        NoUsableFolderError: none of them can hold a folder of ours that the account may enter.

    """
    folder.mkdir(parents=True, exist_ok=True)
    if account is None or may_enter(folder, account):
        return folder / "data"
    note = folder / ELSEWHERE_NOTE
    with suppress(FileNotFoundError):
        return Path(note.read_text().splitlines()[-1])
    name = sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    data = _own_folder(parents, account) / f"data-{name}"
    if data.exists():
        # The folder that it belonged to was deleted with its note, so the data was meant to be deleted too.
        remove(data)
    note.write_text(
        "PostgreSQL does not run as root, and the account it runs as may not enter this folder.\n"
        "Its data is here instead:\n"
        f"{data}\n"
    )
    return data


def make_writable_folder(folder: Path, account: Account | None) -> None:
    """Make a folder that did not exist and belongs to the account alone."""
    folder.mkdir(mode=0o700)
    give(folder, account)


def give(folder: Path, account: Account | None) -> None:
    """Hand a folder to the account, with all in it.

    By open folders and never through a link: root must not be led elsewhere by somebody who may write in there.
    """
    if account is None:
        return
    for _, names, files, opened in os.fwalk(folder):
        for name in names + files:
            os.chown(name, account.uid, account.gid, dir_fd=opened, follow_symlinks=False)
    # Last: until then nobody else comes in.
    os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def put_in_place(made: Path, place: Path) -> None:
    """Rename a finished folder to its name at once; where another process was quicker, its one stays."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(made)


def remove(folder: Path) -> None:
    """Remove a folder under its name at once, so that nobody finds half of it."""
    aside = Path(tempfile.mkdtemp(prefix="removed-", dir=folder.parent))
    with suppress(FileNotFoundError):
        folder.rename(aside / folder.name)
    shutil.rmtree(aside)


def _own_folder(parents: Sequence[Path], account: Account | None) -> Path:
    """Return the first folder that is ours: anyone who may write to it could replace programs that root starts."""
    for parent in parents:
        folder = parent / f"outbox-embedded-{os.geteuid()}"
        with suppress(OSError):
            if _accept(folder, account):
                return folder
    tried = ", ".join(str(parent) for parent in parents)
    raise NoUsableFolderError(f"none of {tried} holds a folder of ours that PostgreSQL's account may enter")


def _forbids_programs(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
    except OSError:
        return True


def _accept(folder: Path, account: Account | None) -> bool:
    mode = 0o700 if account is None else 0o755
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        # mkdir obeys the umask, and this folder is a new one of ours.
        folder.chmod(mode)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return ours and may_enter(folder, account)
