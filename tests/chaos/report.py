"""The table at the end of a run, and the same figures for a program."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.chaos.checking.account import Account
from tests.chaos.run import Options

_LONGEST_LIST: Final = 20


def table(options: Options, account: Account) -> str:
    """Return the figures as text, then what is wrong and what is worth checking."""
    size = f"{options.duration:g} s, {options.rate:g} signups/s"
    processes = f"{options.workers} {options.worker_class} workers, {options.relays} relays"
    lines = [f"chaos: seed {options.seed}, {size}, {processes}", ""]
    width = max(map(len, account.figures))
    lines += [f"  {name:<{width}}  {value!s:>7}" for name, value in account.figures.items()]
    lines += [f"    {kind:<{width - 2}}  {count:>7}" for kind, count in account.faults.items()]
    for title, stories in (("worth checking", account.remarks), ("WRONG", account.wrong)):
        if stories:
            lines += ["", f"{title}:", *(f"  {story}" for story in stories[:_LONGEST_LIST])]
            if len(stories) > _LONGEST_LIST:
                lines.append(f"  and {len(stories) - _LONGEST_LIST} more")
    lines += [
        "",
        "FAILED"
        if account.wrong
        else "nothing is lost, nothing is a ghost, every copy has its cause, every effect happened once",
    ]
    return "\n".join(lines)


def write_json(file: Path, options: Options, account: Account) -> None:
    """Write the options, the figures and the stories."""
    known = {**asdict(options), "parent": None if options.parent is None else str(options.parent)}
    file.write_text(json.dumps({"options": known, **asdict(account)}, indent=2) + "\n")
