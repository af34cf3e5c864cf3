"""A plugin of pytest that turns a skipped test into a failure."""

import os

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped; the summary says which and why."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
