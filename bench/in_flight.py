"""Tells how many mails a worker has in flight by default: `python -m bench.in_flight`, with a worker's environment."""

from bench.children import ready, tell
from shared.settings import read_consumer_settings


def main() -> None:
    """Read the settings as the worker does."""
    ready()
    tell({"in_flight": read_consumer_settings().concurrency})


if __name__ == "__main__":
    main()
