"""Reading jobs from Redis without trusting them.

Anyone who can write to Redis can write any bytes where RQ stores a pickled call. Nothing of them is run here: a job
names a message, and PostgreSQL decides whether that message exists and is due.
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
"""The relay's jobs need less than 100."""

_GREEDY_OPCODES: Final = {"PUT", "LONG_BINPUT"}
"""They store a value at an index that the writer chooses, so that five bytes make the unpickler allocate gigabytes
(CPython gh-115952). RQ writes protocol 5, which does not use them."""

_OPCODES_OF_A_CALL: Final = {
    *("PROTO", "FRAME", "STOP", "MARK", "TUPLE", "TUPLE1", "EMPTY_DICT", "NONE", "MEMOIZE", "BINPUT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"),
}
"""The opcodes that a pickled call of the entry point needs. None refers to an earlier value: fifty tuples, each of
which holds the one before it twice, are 300 bytes, and hashing the outermost takes days without handling a signal."""


@dataclass(frozen=True, slots=True)
class PoppedJob:
    """A job that was popped from its list. If the worker dies now, only the message's row brings it back."""

    queue_key: str
    job_id: bytes


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts and containers. It refuses each class and each function before it is imported."""

    def find_class(self, module_name: str, global_name: str) -> Any:  # noqa: ANN401 - the signature is pickle's
        raise pickle.UnpicklingError(f"refused: {module_name[:40]}.{global_name[:40]}")


class PlainSerializer:
    """An RQ serializer that reads the plain data that RQ's pickle serializer writes, and refuses everything else."""

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
    """Return the id of the message that a stored call names, or None if it does not call the entry point."""
    try:
        pickled = _decompressed(data)
        if any(opcode.name not in _OPCODES_OF_A_CALL for opcode, _, _ in pickletools.genops(pickled)):
            return None
        function, instance, args, kwargs = PlainSerializer.loads(pickled)
    except Exception:  # noqa: BLE001 - pickle may raise anything for such bytes
        return None
    if (function, instance, kwargs) != (ENTRY_POINT, None, {}) or not isinstance(args, tuple) or len(args) != 1:
        return None
    (message_id,) = args
    return message_id if is_message_id(message_id) else None


def _decompressed(data: bytes) -> bytes:
    """Return the data without RQ's compression. Raises zlib.error for a few bytes that expand to a lot."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, LARGEST_DATA_BYTES)
    except zlib.error:
        return data  # as RQ does: the relay does not compress
    if inflater.unconsumed_tail:
        raise zlib.error("too large")
    return plain
