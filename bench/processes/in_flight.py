"""Print how many mails a worker sends at once by default: `python -m bench.processes.in_flight`, in its environment."""

from bench.children import ready, report
from shared.settings.consumer import read_consumer_settings


def main() -> None:
    """Read the settings as the worker does."""
    ready()
    report({"in_flight": read_consumer_settings().concurrency})


if __name__ == "__main__":
    main()
