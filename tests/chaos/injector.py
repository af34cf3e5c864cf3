"""Apply the faults of a plan: those of one target one after the other, those of different targets at once."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final

from embedded.programs import processes
from tests.chaos.checking.evidence import AppliedFault
from tests.chaos.plan import Fault
from tests.chaos.stack import CALM_MAIL_SERVER, Stack

_FIND_SECONDS: Final = 3.0
"""How long a fault waits for what it is to hit: a process that is just being started, the child of a busy worker."""

_TERM_SECONDS: Final = 30.0
_MAIL_FAULTS: Final[Mapping[str, str]] = {
    "mail-421": "greet-421",
    "mail-451": "data-451",
    "mail-hang-before-dot": "rcpt-hang",
    "mail-hang-after-dot": "data-hang",
    "mail-slow": "slow:0.3",
    "mail-drop-after-accept": "drop-after-accept",
}
_FILES_OF_REDIS: Final = ("appendonly.aof", "appendonlydir", "dump.rdb")


class _AbortedError(Exception):
    """The run is given up: nothing is repaired any more."""


class Injector:
    """A thread for each target. They live until they are released: what they started again ends with them."""

    def __init__(self, stack: Stack, plan: Sequence[Fault]) -> None:
        self._stack = stack
        self.applied: list[AppliedFault] = []
        self._began = 0.0
        self._over = threading.Event()
        self._aborted = threading.Event()
        self._released = threading.Event()
        by_target = sorted(plan, key=lambda fault: (fault.target, fault.at))
        self._lanes = [_Lane(self, list(faults)) for _, faults in groupby(by_target, key=lambda fault: fault.target)]

    def start(self) -> None:
        """Start the clock of the plan."""
        self._began = time.monotonic()
        for lane in self._lanes:
            lane.start()

    def check(self) -> None:
        """Raise what went wrong in a lane."""
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error

    def end(self) -> None:
        """Begin no further fault, and return when those in course are over and what they took away is back."""
        self._over.set()
        for lane in self._lanes:
            lane.done.wait()
        self.check()

    def abort(self) -> None:
        """Stop recovering: what is down now is not started again."""
        self._aborted.set()
        self._over.set()
        for lane in self._lanes:
            if lane.ident is not None:
                lane.done.wait()

    def release(self) -> None:
        """End the threads. Only when all servers have ended: the kernel ends what a thread started with that thread."""
        self._released.set()
        for lane in self._lanes:
            if lane.ident is not None:
                lane.join()

    def wait_for(self, fault: Fault) -> bool:
        """Wait until it is the fault's time; False when none is to begin any more."""
        return not self._over.wait(max(0.0, self._began + fault.at - time.monotonic()))

    def wait_for_release(self) -> None:
        """Keep a lane alive."""
        self._released.wait()

    def perform(self, fault: Fault) -> None:
        """Apply one fault from its start to its end, and record it unless there was nothing to hit."""
        began = time.time()
        if self._action(fault)(fault):
            self.applied.append(AppliedFault(fault.kind, fault.target, fault.variant, began, time.time()))

    def _action(self, fault: Fault) -> Callable[[Fault], bool]:
        if fault.kind in _MAIL_FAULTS:
            return self._disturb_mail
        actions: dict[str, Callable[[Fault], bool]] = {
            "api-kill": self._kill,
            "relay-kill": self._kill,
            "relay-stop": self._stop,
            "relay-term": self._term,
            "worker-kill": self._kill,
            "worker-stop": self._stop,
            "worker-term": self._term,
            "postgres-backend-kill": self._kill_backend,
            "postgres-stop": self._freeze_postgres,
            "postgres-immediate": self._shut_postgres_down,
            "postgres-kill": self._kill_postgres,
            "redis-kill": self._kill_redis,
            "redis-wipe": self._wipe_redis,
            "redis-stop": self._freeze_redis,
            "redis-flush": self._flush_redis,
            "redis-old": self._set_redis_back,
            "mail-kill": self._kill_mail,
        }
        return actions[fault.kind]

    def _pause(self, seconds: float) -> None:
        if self._aborted.wait(seconds):
            raise _AbortedError

    def _signal(self, fault: Fault, number: signal.Signals) -> set[int]:
        """Send the signal as soon as there is a process to get it."""
        supervisor = self._stack.supervisor
        alone = fault.target.startswith("worker") and self._stack.worker_class == "own"
        variant = "parent" if alone else fault.variant
        deadline = time.monotonic() + _FIND_SECONDS
        while not (hit := supervisor.signal(fault.target, number, variant)) and time.monotonic() < deadline:
            self._pause(0.01)
        return hit

    def _kill(self, fault: Fault) -> bool:
        return bool(self._signal(fault, signal.SIGKILL))

    def _stop(self, fault: Fault) -> bool:
        hit = self._signal(fault, signal.SIGSTOP)
        self._pause(fault.seconds)
        self._stack.supervisor.resume(hit)
        return bool(hit)

    def _term(self, fault: Fault) -> bool:
        hit = self._signal(fault, signal.SIGTERM)
        deadline = time.monotonic() + _TERM_SECONDS
        while any(not self._stack.supervisor.has_ended(fault.target, pid) for pid in hit):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{fault.target} did not end within {_TERM_SECONDS:g} s of SIGTERM")
            self._pause(0.02)
        return bool(hit)

    def _kill_backend(self, _fault: Fault) -> bool:
        """Kill one server process, as the kernel does when memory runs out: PostgreSQL ends all others and recovers."""
        if not (pid := self._stack.any_backend()):
            return False
        os.kill(pid, signal.SIGKILL)
        self._stack.wait_for_postgres()
        return True

    def _freeze_postgres(self, fault: Fault) -> bool:
        return self._freeze(processes.in_folder(self._stack.postgres.data, "postgres"), fault)

    def _freeze_redis(self, fault: Fault) -> bool:
        return self._freeze({self._stack.redis.pid}, fault)

    def _freeze(self, pids: set[int], fault: Fault) -> bool:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        try:
            self._pause(fault.seconds)
        finally:
            for pid in pids:
                _send(pid, signal.SIGCONT)
        return True

    def _shut_postgres_down(self, fault: Fault) -> bool:
        self._stack.postgres.stop("immediate")
        self._pause(fault.seconds)
        self._stack.postgres.start()
        return True

    def _kill_postgres(self, fault: Fault) -> bool:
        self._stack.postgres.kill()
        self._pause(fault.seconds)
        self._stack.postgres.start()
        return True

    def _kill_redis(self, fault: Fault) -> bool:
        self._stack.redis.kill()
        self._pause(fault.seconds)
        self._stack.redis.start()
        return True

    def _wipe_redis(self, fault: Fault) -> bool:
        self._stack.redis.kill()
        self._stack.redis.wipe()
        self._pause(fault.seconds)
        self._stack.redis.start()
        return True

    def _flush_redis(self, _fault: Fault) -> bool:
        with self._stack.redis.client() as client:
            client.flushall()
        return True

    def _set_redis_back(self, fault: Fault) -> bool:
        """Start it again with the files that it had some seconds ago."""
        redis = self._stack.redis
        older = redis.folder / "older"
        shutil.rmtree(older, ignore_errors=True)
        older.mkdir()
        for name in _FILES_OF_REDIS:
            _copy(redis.folder / name, older / name)
        self._pause(fault.seconds)
        redis.kill()
        redis.wipe()
        for name in _FILES_OF_REDIS:
            _copy(older / name, redis.folder / name)
        redis.start()
        return True

    def _kill_mail(self, fault: Fault) -> bool:
        self._stack.mail.kill()
        self._pause(fault.seconds)
        self._stack.start_mail()
        return True

    def _disturb_mail(self, fault: Fault) -> bool:
        # The first line that names a pause counts.
        self._stack.mails.set_fault(f"{_MAIL_FAULTS[fault.kind]}\n{CALM_MAIL_SERVER}")
        self._pause(fault.seconds)
        self._stack.mails.set_fault(CALM_MAIL_SERVER)
        return True


class _Lane(threading.Thread):
    """The faults of one target."""

    def __init__(self, injector: Injector, faults: list[Fault]) -> None:
        super().__init__(name=f"faults of {faults[0].target}", daemon=True)
        self._injector = injector
        self._faults = faults
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for fault in self._faults:
                if not self._injector.wait_for(fault):
                    break
                self._injector.perform(fault)
        except _AbortedError:
            pass
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            self.error = exc
        finally:
            self.done.set()
        self._injector.wait_for_release()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)
