"""The id of a message's job: the worker reads what the relay writes, and takes nothing else for one."""

import pytest

from shared.outbox.columns import LARGEST_ID
from shared.rq_format.ids import is_message_id, job_id, message_id_of_job


def test_the_format_is_the_one_that_a_worker_of_another_version_reads() -> None:
    assert job_id(42, 3) == "outbox-42-g3"


@pytest.mark.parametrize("message_id", [1, 42, LARGEST_ID])
def test_a_job_of_the_relay_names_its_message(message_id: int) -> None:
    assert message_id_of_job(job_id(message_id, 7).encode()) == message_id


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"outbox-",
        b"outbox--1-g0",
        b"outbox-0-g0",
        b"outbox-1",
        b"outbox-1-g",
        b"outbox-1-g0\n",
        b" outbox-1-g0",
        b"outbox-1-g0-g1",
        b"outbox-1.5-g0",
        b"outbox-1e3-g0",
        b"outbox-0x10-g0",
        b"outbox-1_000-g0",
        "outbox-\u0661-g0".encode(),
        b"OUTBOX-1-g0",
        b"\xff\xfe",
        b"8c1d7f9e-0c1c-4a34-9f3f-3f6ad3b4f0f5",
        f"outbox-{LARGEST_ID + 1}-g0".encode(),
        b"outbox-" + b"9" * 5000 + b"-g0",
    ],
)
def test_any_other_id_names_none(foreign: bytes) -> None:
    assert message_id_of_job(foreign) is None


@pytest.mark.parametrize("value", [0, -1, LARGEST_ID + 1, True, 5.0, "5", None, (5,)])
def test_what_is_no_message_id(value: object) -> None:
    assert not is_message_id(value)
