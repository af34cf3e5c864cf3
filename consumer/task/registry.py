"""The tasks that this consumer can run, from the modules that OUTBOX_TASKS names."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from consumer.task.definition import Task, default_delay_seconds
from shared.errors import SettingsError
from shared.outbox.claiming.known_tasks import KnownTasks
from shared.settings.consumer import DEFAULT_TASK_MODULES

_VARIABLE: Final = "OUTBOX_TASKS"

AnyTask = Task[Any]


@dataclass(frozen=True, slots=True)
class TaskRegistry:
    """Tasks by name.

    Attributes:
        tasks: the tasks.
        folders: for each task the folders in which its mails' templates may be.
        own: the names of this project's tasks. Their mails are prepared together, before they get a place.

    """

    tasks: Mapping[str, AnyTask]
    folders: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def get(self, name: str) -> AnyTask | None:
        """Return the task with this name; None for one that this consumer does not know."""
        return self.tasks.get(name)

    def with_tasks(self, *tasks: AnyTask, is_own: bool = False) -> "TaskRegistry":
        """Return a registry that has these tasks too."""
        added = {each.name: each for each in tasks}
        return replace(self, tasks={**self.tasks, **added}, own=self.own | set(added) if is_own else self.own)

    def delay_seconds(self, task: str, attempt: int) -> float:
        """Return the delay after the failed attempt with this number."""
        known = self.tasks.get(task)
        return default_delay_seconds(attempt) if known is None else known.delay_seconds(attempt)

    def known_tasks(self) -> KnownTasks:
        """Return what the claim of a message fills in. The destination of a class that names none is its row's."""
        return KnownTasks.of(
            {name: task.message.destination for name, task in self.tasks.items()},
            {name: task.max_retries for name, task in self.tasks.items()},
        )


def load_tasks(modules: Sequence[str]) -> TaskRegistry:
    """Import the modules and return their tasks.

    Raises:
        SettingsError: it names each module that cannot be used, and why.

    """
    problems: list[str] = []
    tasks: dict[str, AnyTask] = {}
    folders: dict[str, tuple[Path, ...]] = {}
    named_by: dict[str, str] = {}
    for module in modules:
        try:
            listed = _tasks_of(module)
        except _UnusableModuleError as exc:
            problems.append(str(exc))
            continue
        for task in listed:
            if task.name in tasks:
                problems.append(f"{module}: the task {task.name!r} is listed twice, first in {named_by[task.name]}.")
                continue
            tasks[task.name], named_by[task.name] = task, module
            folders[task.name] = tuple(_folders(task, module))
    if problems:
        raise SettingsError({_VARIABLE: problems})
    own = frozenset(name for name, module in named_by.items() if module in DEFAULT_TASK_MODULES)
    return TaskRegistry(tasks, folders, own)


class _UnusableModuleError(Exception):
    """A module whose tasks cannot be used. The text names it."""


def _tasks_of(module: str) -> list[AnyTask]:
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as exc:  # whatever a module does when it is imported
        text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        raise _UnusableModuleError(f"{module} cannot be imported: {text}.") from exc
    listed = getattr(imported, "TASKS", None)
    if not isinstance(listed, list | tuple):
        raise _UnusableModuleError(f"{module}: it needs a list TASKS = [Task(…), …].")
    for each in listed:
        if not isinstance(each, Task):
            raise _UnusableModuleError(f"{module}: TASKS holds {type(each).__name__}, which is no Task.")
    return [*listed]


def _folders(task: AnyTask, module: str) -> Iterable[Path]:
    """Return the folder of the module with the task's function, then that of the module that lists it."""
    work = task.prepare or task.handle
    names = dict.fromkeys((getattr(work, "__module__", None), module))
    files = [getattr(sys.modules.get(name or ""), "__file__", None) for name in names]
    return dict.fromkeys(Path(file).resolve().parent for file in files if file)
