"""The modules that OUTBOX_TASKS names: what stops a worker at its start, and what the registry knows."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.task.registry import load_tasks
from shared.errors import SettingsError
from shared.settings.consumer import DEFAULT_TASK_MODULES

GOOD = """
from dataclasses import dataclass
from typing import ClassVar

from consumer.task import Task
from shared.outbox import DEFAULT, Message


@dataclass(frozen=True)
class Resize(Message):
    task: ClassVar[str] = "task:resize"
    queue: ClassVar[str] = DEFAULT
    path: str


def work(context, message):
    pass


TASKS = [Task(Resize, handle=work, max_retries=3)]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def problems_of(folder: Path, source: str) -> str:
    (folder / "mine.py").write_text(source)
    with pytest.raises(SettingsError) as refused:
        load_tasks(["mine"])
    assert list(refused.value.problems) == ["OUTBOX_TASKS"]
    return " ".join(refused.value.problems["OUTBOX_TASKS"])


def test_a_module_outside_the_tree_adds_its_tasks(folder: Path) -> None:
    (folder / "mine.py").write_text(GOOD)

    tasks = load_tasks(["mine", *DEFAULT_TASK_MODULES])

    known = json.loads(tasks.known_tasks().text)
    assert known["task:resize"]["max_retries"] == 3
    assert {name: of["destination"] for name, of in known.items()} == {
        "task:resize": None,
        "task:deliver_webhook": None,
        "task:send_verify_email": "mail",
        "task:send_welcome_email": "mail",
    }
    assert tasks.folders["task:resize"] == (folder.resolve(),)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nothing_of_this_name", "mine cannot be imported: ModuleNotFoundError: No module named"),
        ("def (", "mine cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "mine cannot be imported: SystemExit: 3."),
        ("", "mine: it needs a list TASKS = [Task(…), …]."),
        ("TASKS = 5", "mine: it needs a list TASKS"),
        ("TASKS = [5]", "mine: TASKS holds int, which is no Task."),
        (GOOD + "TASKS *= 2", "mine: the task 'task:resize' is listed twice, first in mine."),
        (GOOD.replace("path: str", "path: complex"), "Resize.path: no schema can be derived"),
        (GOOD.replace('task: ClassVar[str] = "task:resize"', ""), "`task` has to name the task"),
        (GOOD.replace('"task:resize"', '""'), "`task` has to name the task"),
        (GOOD.replace("= DEFAULT", '= "slow"'), "`queue` has to be CRITICAL or DEFAULT"),
        (GOOD.replace("path: str", 'destination: ClassVar[str] = "Not A Name"'), "`destination` has to be"),
        (GOOD.replace("Message):", "object):"), "not a dataclass that inherits from shared.outbox.Message"),
        (GOOD.replace("handle=work, ", ""), "exactly one function, prepare or handle"),
        (GOOD.replace("handle=work", "handle=work, prepare=work"), "exactly one function, prepare or handle"),
        (GOOD.replace("def work", "async def work"), "neither async nor a generator"),
        (GOOD.replace("    pass", "    yield"), "neither async nor a generator"),
        (GOOD.replace("max_retries=3", "max_retries=-1"), "max_retries has to be"),
        (GOOD.replace("max_retries=3", "timeout_seconds=0"), "timeout_seconds has to be"),
        (GOOD.replace("max_retries=3", "backoff=[]"), "backoff has to be"),
        (GOOD.replace("max_retries=3", "backoff=[-1]"), "backoff has to be"),
        (GOOD.replace("max_retries=3", "schema=5"), "schema has to be"),
    ],
)
def test_a_module_that_cannot_be_used_is_named_with_the_reason(folder: Path, source: str, problem: str) -> None:
    assert problem in problems_of(folder, source)


def test_a_task_of_two_modules_is_named_with_both(folder: Path) -> None:
    (folder / "first.py").write_text(GOOD)
    (folder / "second.py").write_text(GOOD)

    with pytest.raises(SettingsError) as refused:
        load_tasks(["first", "second", "third"])

    assert refused.value.problems["OUTBOX_TASKS"] == [
        "second: the task 'task:resize' is listed twice, first in first.",
        "third cannot be imported: ModuleNotFoundError: No module named 'third'.",
    ]
