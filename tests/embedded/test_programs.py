"""Child processes: started, ended, and never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.errors import AlreadyRunningError, NotRunningError, ProgramFailedError
from embedded.programs.program import Command, Program
from embedded.stack import Ports, Stack
from tests.programs.preloading import Preloaded, PreloadedProgram, preloaded
from tests.waiting import wait_until

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.DEVNULL)
print("child", child.pid, flush=True)
time.sleep(600)
"""
STARTER = """
import sys
from pathlib import Path
from embedded.programs.program import Command, Program
program = Program(Command("sleeper", ["/bin/sleep", "600"], {}, Path("/"), Path(sys.argv[1])))
program.start()
print(program.pid, flush=True)
sys.stdin.read()
"""

Start = Callable[[str], Program]


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Preloaded]:
    with preloaded(["subprocess"], tmp_path) as origin:
        yield origin


@pytest.fixture(params=["started", "forked"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start Python programs and stop them after the test. tests.programs.preloading starts programs in the same way."""
    started: list[Program] = []
    origin = request.getfixturevalue("origin") if request.param == "forked" else None

    def start_(code: str) -> Program:
        name = f"helper_{len(started)}"
        (tmp_path / f"{name}.py").write_text(code)
        log_file = tmp_path / f"{len(started)}.log"
        command = Command("helper", [sys.executable, "-m", name], {"ONLY": "this"}, tmp_path, log_file)
        program = PreloadedProgram(command, origin) if origin else Program(command)
        started.append(program)
        program.start()
        wait_until(lambda: not program.running or log_file.read_text(), 10, "the program's first words")
        return program

    yield start_
    for program in started:
        program.kill(with_children=True)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_program_gets_the_environment_it_is_given_and_nothing_else(start: Start, tmp_path: Path) -> None:
    start("import os; print({name for name in os.environ if name not in {'LC_CTYPE', '__CF_USER_TEXT_ENCODING'}})")

    assert (tmp_path / "0.log").read_text() == "{'ONLY'}\n"


def test_a_program_is_not_started_twice(start: Start) -> None:
    program = start(SLEEP)

    with pytest.raises(AlreadyRunningError):
        program.start()


def test_a_program_that_does_not_run_has_no_pid(start: Start) -> None:
    program = start("print()")
    program.wait(10)

    with pytest.raises(NotRunningError):
        _ = program.pid


def test_stop_asks_first(start: Start) -> None:
    assert start(SLEEP).stop() == -signal.SIGTERM


def test_stop_kills_a_program_that_ignores_the_signal(start: Start) -> None:
    assert start(DEAF).stop(grace=0.1) == -signal.SIGKILL


def test_kill_leaves_children_alone_unless_asked(start: Start, tmp_path: Path) -> None:
    parents = start(PARENT), start(PARENT)
    children = [int((tmp_path / f"{number}.log").read_text().split()[1]) for number in (0, 1)]

    parents[0].kill()
    parents[1].kill(with_children=True)

    assert is_alive(children[0])
    wait_until(lambda: not is_alive(children[1]), 10, "the end of the second child")
    os.kill(children[0], signal.SIGKILL)


def test_restart_makes_a_new_process(start: Start) -> None:
    program = start(SLEEP)
    before = program.pid

    program.restart()

    assert program.running
    assert program.pid != before


def test_waiting_for_a_program_that_ended_shows_its_last_output(start: Start) -> None:
    program = start("raise SystemExit('no such table')")

    with pytest.raises(ProgramFailedError, match=r"(?s)helper ended with exit code 1.*no such table"):
        program.wait_ready(lambda: False)


def test_waiting_for_a_program_has_an_end(start: Start) -> None:
    with pytest.raises(ProgramFailedError, match=r"not ready after 0\.1 s"):
        start(SLEEP).wait_ready(lambda: False, timeout=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_program_dies_with_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path / "log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())

        assert is_alive(child)

        starter.kill()

        wait_until(lambda: not is_alive(child), 10, "the end of the killed parent's child")


def test_the_worker_alone_gets_the_caller_s_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"OUTBOX_TASKS": "shop.tasks", "PYTHONPATH": "/srv/shop", "TEMPLATES_FOLDER": "/srv/shop/templates"}
    for name, value in {**tasks, "WORKER_CONCURRENCY": "50"}.items():
        monkeypatch.setenv(name, value)

    stack = Stack(tmp_path, secret_key="k" * 43, ports=Ports(api=1, mailbox=2, smtp=3, postgres=4, redis=5))

    assert tasks.items() <= stack.worker.command.env.items()
    assert "WORKER_CONCURRENCY" not in stack.worker.command.env
    assert tasks.keys().isdisjoint(stack.relay.command.env)
