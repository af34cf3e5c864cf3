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
"""Temporary folders come last, because the system may delete them."""


def cache_folder(account: Account | None, parents: Sequence[Path] | None = None) -> Path:
    """Return the folder for files that can be created again. Only we may write to it, and the account may enter it.

    Args:
        account: the account that has to enter it; None for this process's own.
        parents: where it may be, the preferred place first; None for the usual places.

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
        account: the account that has to reach the data; None for this process's own.
        parents: where "elsewhere" may be, the preferred place first.

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
        # The folder that it belonged to was deleted, with this note in it: the data is to be deleted too.
        remove(data)
    note.write_text(
        "PostgreSQL does not run as root, and the account it runs as may not enter this folder.\n"
        "Its data is here instead:\n"
        f"{data}\n"
    )
    return data


def make_writable_folder(folder: Path, account: Account | None) -> None:
    """Create a folder that only the account can use."""
    folder.mkdir(mode=0o700)
    give(folder, account)


def give(folder: Path, account: Account | None) -> None:
    """Change the owner of a folder and of everything in it to the account.

    It works on open folders and follows no link, so that no user who may write there can redirect root.
    """
    if account is None:
        return
    for _, names, files, opened in os.fwalk(folder):
        for name in names + files:
            os.chown(name, account.uid, account.gid, dir_fd=opened, follow_symlinks=False)
    # Last: until then no other user can enter.
    os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def put_in_place(made: Path, place: Path) -> None:
    """Rename a finished folder to its name atomically. If another process was faster, its folder stays."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        shutil.rmtree(made)


def remove(folder: Path) -> None:
    """Remove a folder. It is renamed first, so that no process finds half of it."""
    aside = Path(tempfile.mkdtemp(prefix="removed-", dir=folder.parent))
    with suppress(FileNotFoundError):
        folder.rename(aside / folder.name)
    shutil.rmtree(aside)


def _own_folder(parents: Sequence[Path], account: Account | None) -> Path:
    """Return the first folder that is ours. Anyone who may write to it could replace programs that root starts."""
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
        # mkdir obeys the umask; this folder is new and ours.
        folder.chmod(mode)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return ours and may_enter(folder, account)
