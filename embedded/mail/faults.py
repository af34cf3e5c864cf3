"""The faults that can be switched on in the mail server, by name.

| name | what happens |
|---|---|
| `greet-421`, `auth-535`, `mail-451`, `rcpt-550`, `data-451` … | that step gets that answer; data: its last dot |
| `rcpt-550:ann@example.com`, `data-451:ann@example.com` | the same for this recipient alone |
| `greet-hang`, `mail-hang`, `rcpt-hang`, `data-hang`, `quit-hang` | that step is never answered; the mail is not kept |
| `data-hang` | also ends the connection when it is switched off |
| `drop-before-data` | the connection is closed at DATA |
| `drop-after-accept` | the mail is kept, then the connection is closed without an answer |
| `slow:SECONDS` | a pause before each answer |
| `drip` | answers come one byte a second |

An answer of 421 closes the connection.
"""

import re
from dataclasses import dataclass

_HANG_OR_CODE = re.compile(r"(greet|auth|mail|rcpt|data|quit)-(hang|[45]\d\d)")
_WHOLE_CONNECTION = {"drop-before-data", "drop-after-accept", "drip"}


@dataclass(frozen=True)
class Fault:
    """One line of the fault file."""

    name: str
    argument: str = ""

    @property
    def seconds(self) -> float:
        """The pause of `slow`."""
        return float(self.argument)


@dataclass(frozen=True)
class Faults:
    """The faults that are switched on."""

    all: tuple[Fault, ...] = ()

    def has(self, name: str) -> Fault | None:
        """Return the fault of that name."""
        return next((fault for fault in self.all if fault.name == name), None)

    def at(self, step: str, addresses: tuple[str, ...] = ()) -> str | None:
        """Return `hang` or the code that the step is answered with."""
        for fault in self.all:
            found = _HANG_OR_CODE.fullmatch(fault.name)
            if found and found[1] == step and (not fault.argument or fault.argument in addresses):
                return found[2]
        return None


def parse_faults(text: str) -> Faults:
    """Parse a fault file. Raises ValueError naming an unknown fault."""
    faults = []
    for line in text.split():
        name, _, argument = line.partition(":")
        fault = Fault(name, argument)
        if name == "slow":
            if fault.seconds < 0:
                raise ValueError(f"a pause of {argument} s")
        elif name not in _WHOLE_CONNECTION and not _HANG_OR_CODE.fullmatch(name):
            raise ValueError(f"unknown fault {line!r}")
        faults.append(fault)
    return Faults(tuple(faults))
