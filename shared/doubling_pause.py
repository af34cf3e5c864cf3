"""A pause that doubles each time, between two tries of something that fails or between two polls."""


class DoublingPause:
    """The length of the next pause: the first one, then twice as long each time, up to the longest."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._seconds = first_seconds

    def next(self) -> float:
        """Return the length of this pause in seconds, and double it for the next one."""
        seconds = self._seconds
        self._seconds = min(self._longest_seconds, seconds * 2)
        return seconds

    def reset(self) -> None:
        """Start again with the first pause."""
        self._seconds = self._first_seconds
