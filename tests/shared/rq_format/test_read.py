"""Reading any bytes from Redis runs nothing, imports nothing and takes little memory."""

import builtins
import contextlib
import io
import os
import pickle
import resource
import subprocess
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.outbox.columns import LARGEST_ID
from shared.outbox.messages import ENTRY_POINT, JobRef
from shared.rq_format.read import LARGEST_DATA_BYTES, PlainSerializer, message_id_of_call
from shared.rq_format.write import push_arguments
from tests.redis_keys import KEYS
from tests.shared.rq_format.former_job import FORMER_JOB

ROOT = Path(__file__).parents[3]


class Reduced:
    """A pickle of it calls the function when it is read."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def call(*args: object, function: object = ENTRY_POINT, instance: object = None, kwargs: object = None) -> bytes:
    """What RQ stores of a call, before it compresses it."""
    return pickle.dumps((function, instance, args, {} if kwargs is None else kwargs), protocol=5)


def compressed(message_id: int) -> bytes:
    """What RQ stores when somebody else enqueues a call of our entry point."""
    return zlib.compress(call(message_id))


# ---- the serializer


@pytest.mark.parametrize("protocol", [4, 5])
def test_the_serializer_reads_plain_data(protocol: int) -> None:
    data = (
        "text",
        None,
        (1, -(2**70), 1.5, True, b"bytes", "grüße 😀"),
        {"k": [1, {2}, frozenset({3})], "same": "text"},
    )

    assert PlainSerializer.loads(pickle.dumps(data, protocol=protocol)) == data


def test_the_serializer_reads_what_it_writes() -> None:
    data = (ENTRY_POINT, None, (5,), {"a": [1, 2, 3] * 200})

    assert PlainSerializer.loads(PlainSerializer.dumps(data)) == data


@pytest.mark.parametrize(
    "value",
    [builtins.print, os.system, int, Path, OrderedDict(a=1), datetime.now(UTC), Reduced(os.system, "true"), {1: {len}}],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", range(6))
def test_the_serializer_refuses_every_class_and_every_function(value: object, protocol: int) -> None:
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        PlainSerializer.loads(pickle.dumps(value, protocol=protocol))


TRICKS = {
    "GLOBAL": b"cos\nsystem\n(S'true'\ntR.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "NEWOBJ": b"\x80\x02cbuiltins\nobject\n)\x81.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "a dotted path": b"\x80\x04\x8c\x08builtins\x8c\x0eprint.__self__\x93.",
    "REDUCE of a text": b"\x80\x04\x8c\x04true\x8c\x04true\x85R.",
    "BUILD of a dict": b"\x80\x04}}b.",
    "BUILD of a list": b"\x80\x04]}\x8c\x01a\x8c\x01bsb.",
    "APPEND to nothing": b"\x80\x04\x8c\x04truea.",
    "PERSID": b"P1\n.",
    "BINPERSID": b"\x80\x04K\x01Q.",
    "EXT1": b"\x80\x02\x82\x01.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "a huge BYTEARRAY8": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a huge BINBYTES8": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a huge LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "BINGET of nothing": b"\x80\x05h\x05.",
    "LONG_BINGET of nothing": b"\x80\x05j\xff\xff\xff\xff.",
    "a protocol of the future": b"\x80\xff.",
    "an early end": b"\x80\x05.",
    "nothing": b"",
    "garbage": b"garbage",
    "JSON": b'["consumer.jobs.run_message", null, [5], {}]',
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_the_serializer_refuses_tricks_with_the_protocol(data: bytes) -> None:
    written = io.StringIO()
    with contextlib.redirect_stdout(written), pytest.raises(Exception):  # noqa: B017, PT011 - pickle may raise anything
        PlainSerializer.loads(data)

    assert written.getvalue() == ""


@pytest.mark.parametrize(
    ("data", "opcode"),
    [(b"\x80\x02Nr\x01\x00\x00\x00.", "LONG_BINPUT"), (b"Np1\n.", "PUT")],
    ids=["LONG_BINPUT", "PUT"],
)
def test_the_serializer_refuses_to_store_a_value_at_a_chosen_index(data: bytes, opcode: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=f"refused: {opcode}"):
        PlainSerializer.loads(data)


def nested_twice(depth: int) -> bytes:
    """A tuple that holds the one before it twice, and so on, as the key of a dictionary."""
    levels = b"".join(b"h%ch%c\x86\x94" % (level, level) for level in range(depth))
    return b"\x80\x04)\x94%b}h%cNs." % (levels, depth)


def test_a_few_bytes_nest_as_they_should() -> None:
    assert PlainSerializer.loads(nested_twice(2)) == {(((), ()), ((), ())): None}


@pytest.mark.parametrize(
    "data", [b"\x80\x02Nr\xff\xff\xff\x03.", b"Np67108863\n.", nested_twice(60)], ids=["LONG_BINPUT", "PUT", "nested"]
)
def test_a_few_bytes_can_take_neither_gigabytes_nor_days(data: bytes) -> None:
    script = f"import shared.rq_format.read as jobs; print(jobs.message_id_of_call({data!r}))"
    # Not ru_maxrss: it starts at what this process had at the fork.
    peak = "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')])"

    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{peak}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
        timeout=60,
    )

    answer, kilobytes = done.stdout.split()
    assert answer == "None"
    assert int(kilobytes) < 200_000


# ---- the job's call


@pytest.mark.parametrize("message_id", [1, 300, 2**40, LARGEST_ID])
def test_a_call_of_our_entry_point_names_its_message(message_id: int) -> None:
    (pushed,) = [part for part in push_arguments([JobRef(message_id, 0, "critical")], KEYS) if isinstance(part, bytes)]

    assert [message_id_of_call(data) for data in (pushed, call(message_id), compressed(message_id))] == [message_id] * 3


def test_a_call_that_a_former_relay_pushed_in_a_stored_block_names_its_message() -> None:
    assert message_id_of_call(FORMER_JOB[b"data"]) == 123_456


FOREIGN_CALLS = {
    "os.system": call(5, function="os.system"),
    "builtins.print": call(5, function="builtins.print"),
    "another function of ours": call(5, function="consumer.jobs.read_consumer_settings"),
    "no function": call(5, function=None),
    "a function named in bytes": call(5, function=b"consumer.jobs.run_message"),
    "an instance": call(5, instance="text"),
    "a keyword": call(5, kwargs={"message_id": 5}),
    "keywords that are a number": call(5, kwargs=5),
    "no argument": call(),
    "two arguments": call(5, 6),
    "arguments that are a number": pickle.dumps((ENTRY_POINT, None, 5, {})),
    "arguments that are a text": pickle.dumps((ENTRY_POINT, None, "5", {})),
    "arguments that are a set": pickle.dumps((ENTRY_POINT, None, {5}, {})),
    "arguments that are a dict": pickle.dumps((ENTRY_POINT, None, {0: 5}, {})),
    "a text": call("5"),
    "a fraction": call(5.0),
    "True": call(True),  # noqa: FBT003 - the case
    "None": call(None),
    "a tuple": call((5,)),
    "zero": call(0),
    "a negative number": call(-1),
    "more than a bigint": call(LARGEST_ID + 1),
    "a number of a thousand digits": call(10**1000),
    "three parts": pickle.dumps((ENTRY_POINT, None, (5,))),
    "not a tuple": pickle.dumps(5),
    "an object": pickle.dumps(Reduced(os.system, "true")),
    "an object inside": pickle.dumps((Reduced(os.system, "true"), None, (5,), {})),
    "no bytes": b"",
    "garbage": b"garbage",
    "garbage that looks compressed": b"\x78\x9cgarbage",
    "compressed garbage": zlib.compress(b"garbage"),
    "half a call": compressed(5)[:20],
    "a call and a million zeros": zlib.compress(call(5) + b"\x00" * 1_000_000),
    "zeros": b"\x00" * LARGEST_DATA_BYTES,
    "a nest of lists": b"\x80\x05" + b"]" * 2000 + b"a" * 1999 + b".",
}


@pytest.mark.parametrize("data", FOREIGN_CALLS.values(), ids=FOREIGN_CALLS)
def test_any_other_call_names_none(data: bytes) -> None:
    assert message_id_of_call(data) is None


def test_bytes_that_unfold_to_gigabytes_name_none() -> None:
    deflater = zlib.compressobj(9)
    bomb = b"".join(deflater.compress(b"\x00" * 1_000_000) for _ in range(3)) + deflater.flush()
    assert len(bomb) < LARGEST_DATA_BYTES

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = message_id_of_call(bomb)

    assert answer is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000
