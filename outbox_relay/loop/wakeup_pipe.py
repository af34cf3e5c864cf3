"""The pipe that ends a relay's sleep from a signal handler or another thread."""

import os
import select


class WakeupPipe:
    """Ends a sleep. Writing to a pipe is safe in a signal handler; taking a lock would not be."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """End the current or the next sleep."""
        os.write(self._writer, b"!")

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until `wake` is called. Notifications do not end this sleep."""
        if select.select([self.reader], [], [], seconds)[0]:
            self.drain()

    def drain(self) -> None:
        """Read what `wake` has written."""
        os.read(self.reader, 4096)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reader)
        os.close(self._writer)
