import subprocess
import sys

from tests.programs.processes import ROOT

PROGRAM = """
import os, signal, time
from embedded.programs.signals import ignore_signals, interrupt_on_signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

interrupt_on_signals()
try:
    Finalized()
    print("dropped", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    ignore_signals()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    print("stopped")
"""


def test_a_signal_whose_exception_python_drops_is_obeyed_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout) == (0, "dropped\nstopped\n"), done.stderr
    assert "Exception ignored" in done.stderr
