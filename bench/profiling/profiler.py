"""Sample the stacks of a running program: `python -m bench.profiling.profiler FOLDER MODULE-OR-SCRIPT ARGUMENTS…`.

Every few milliseconds a thread records the position of all others. That is wall-clock time: waiting for PostgreSQL
counts like computing, and so does waiting for Python's lock. It costs a few percent and works for threads and forks
alike, which a tracing profiler would slow down by half.
"""

import json
import os
import runpy
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

_PAUSE_SECONDS: Final = 0.003
_WRITTEN_EACH_SECONDS: Final = 0.1
_PACKAGES: Final = ("outbox_relay", "consumer", "shared")


class Sampler:
    """The thread that takes samples."""

    def __init__(self, folder: Path) -> None:
        """Store the folder for the counts."""
        self._folder = folder
        self._ours: Counter[str] = Counter()
        self._leaves: Counter[str] = Counter()

    def start(self) -> None:
        """Start sampling, in this process and in each of its forks."""
        self._ours.clear()
        self._leaves.clear()
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def _run(self) -> None:
        me = threading.get_ident()
        write_at = 0.0
        while True:
            time.sleep(_PAUSE_SECONDS)
            for thread, frame in sys._current_frames().items():  # noqa: SLF001 - documented, for profilers
                if thread != me:
                    self._note(frame)
            if time.monotonic() > write_at:
                self._write()
                write_at = time.monotonic() + _WRITTEN_EACH_SECONDS

    def _note(self, leaf: FrameType) -> None:
        """Count the innermost function, and the innermost of ours, if the thread is in our code at all."""
        frame: FrameType | None = leaf
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.partition(".")[0] in _PACKAGES and frame.f_code.co_name != "<module>":
                self._ours[f"{module}.{frame.f_code.co_qualname}"] += 1
                self._leaves[f"{leaf.f_globals.get('__name__', '')}.{leaf.f_code.co_qualname}"] += 1
                return
            frame = frame.f_back

    def _write(self) -> None:
        """Write the counts so far, because a process may end without notice."""
        file = self._folder / f"{os.getpid()}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"ours": self._ours, "leaves": self._leaves}))
        part.replace(file)


def main() -> None:
    """Run the program and sample it."""
    folder, program, *arguments = sys.argv[1:]
    sampler = Sampler(Path(folder))
    sampler.start()
    os.register_at_fork(after_in_child=sampler.start)
    sys.argv = [program, *arguments]
    if Path(program).is_file():
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
