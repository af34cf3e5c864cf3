"""The service and one browser for all tests of this folder, and their pictures.

Both end with the folder's tests, because they would keep polling and repainting beside all others.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.stack import Stack
from tests.browser.chromium import Browser, missing_programs
from tests.conftest import absent
from tests.programs.preloading import Preloaded
from tests.programs.processes import forked_stack

IMAGES = Path(__file__).parents[2] / "docs" / "images"

Keep = Callable[[str], None]


@pytest.fixture(scope="package")
def stack(server_folder: Path, origin: Preloaded, api_origin: Preloaded) -> Iterator[Stack]:
    """Everything that `make up` starts."""
    with forked_stack(server_folder / "browser", origin, api_origin) as stack:
        stack.start()
        yield stack


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if missing := missing_programs():
        absent(f"no {' and no '.join(missing)} on the PATH: apt-get install chromium chromium-driver")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """A wide window without a cookie."""
    chromium.driver.delete_all_cookies()
    chromium.look_at(900)
    return chromium


@pytest.fixture
def keep(chromium: Browser, pytestconfig: pytest.Config) -> Keep:
    """Check that a page fits the window's width. With --screenshots, store its picture in docs/images."""

    def picture(name: str) -> None:
        assert chromium.overflow() <= 0, f"{name} is wider than its window"
        if pytestconfig.getoption("screenshots"):
            IMAGES.mkdir(exist_ok=True)
            (IMAGES / f"{name}.png").write_bytes(chromium.picture())

    return picture
