"""Reading jobs from Redis without believing them.

Whoever can write to Redis can write any bytes where RQ keeps a pickled call. Here nothing of it is ever run: a job
names a message, and whether that message exists and is due is asked of PostgreSQL.
"""

import io
import pickle
import pickletools
import zlib
from dataclasses import dataclass
from typing import Any, Final

from shared.outbox.messages import ENTRY_POINT
from shared.rq_format.ids import is_message_id

LARGEST_DATA_BYTES: Final = 4096
"""Our own jobs need less than 100."""

_GREEDY_OPCODES: Final = {"PUT", "LONG_BINPUT"}
"""They store at a place whose number the writer chooses: five bytes, and the unpickler takes gigabytes (CPython
gh-115952). RQ writes protocol 5, which has no use for them."""

_OPCODES_OF_A_CALL: Final = {
    *("PROTO", "FRAME", "STOP", "MARK", "TUPLE", "TUPLE1", "EMPTY_DICT", "NONE", "MEMOIZE", "BINPUT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"),
}
"""What pickle needs for a call of our entry point. Nothing of it names a value twice: fifty tuples, each of which holds
the one before it twice, are 300 bytes, and hashing the outermost takes days, in which no signal is heard."""


@dataclass(frozen=True, slots=True)
class PoppedJob:
    """A job that only we have now; nothing but the claim in PostgreSQL keeps it from being lost."""

    queue_key: str
    job_id: bytes


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts and containers. Every class and every function is refused before it is imported."""

    def find_class(self, module_name: str, global_name: str) -> Any:  # noqa: ANN401 - the signature is pickle's
        raise pickle.UnpicklingError(f"refused: {module_name[:40]}.{global_name[:40]}")


class PlainSerializer:
    """An RQ serializer that reads what RQ's own pickle serializer wrote, as long as it is plain data."""

    @staticmethod
    def dumps(value: object) -> bytes:
        """Write plain data."""
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def loads(data: bytes) -> Any:  # noqa: ANN401 - RQ's protocol
        """Read plain data. Raises pickle.UnpicklingError or ValueError for anything else."""
        for opcode, _, _ in pickletools.genops(data):
            if opcode.name in _GREEDY_OPCODES:
                raise pickle.UnpicklingError(f"refused: {opcode.name}")
        return _PlainUnpickler(io.BytesIO(data)).load()


def message_id_of_call(data: bytes) -> int | None:
    """Give the message that a job's stored call names, or None when it calls anything but our entry point."""
    try:
        pickled = _decompressed(data)
        if any(opcode.name not in _OPCODES_OF_A_CALL for opcode, _, _ in pickletools.genops(pickled)):
            return None
        function, instance, args, kwargs = PlainSerializer.loads(pickled)
    except Exception:  # noqa: BLE001 - a stranger's bytes may make pickle raise anything
        return None
    if (function, instance, kwargs) != (ENTRY_POINT, None, {}) or not isinstance(args, tuple) or len(args) != 1:
        return None
    (message_id,) = args
    return message_id if is_message_id(message_id) else None


def _decompressed(data: bytes) -> bytes:
    """Undo RQ's compression, but not for a few bytes that would unfold to gigabytes."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, LARGEST_DATA_BYTES)
    except zlib.error:
        return data  # RQ takes that for what was never compressed
    if inflater.unconsumed_tail:
        raise zlib.error("too large")
    return plain
