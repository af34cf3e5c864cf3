"""Debian's Chromium without a window, driven by Selenium."""

import base64
import shutil
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.waiting import wait_until

_PROGRAMS = ("chromium", "chromedriver")
_OPTIONS = (
    "--headless=new",
    # Root, as in CI, has no sandbox. No foreign page is opened.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--no-first-run",
    "--no-proxy-server",
    "--lang=en-US",
)
_PATIENCE_SECONDS = 20.0

WIDE = 900
NARROW = 360
"""Widths of a window and of a small phone, in CSS pixels."""
TALLEST = 1400
"""The height of the picture of a long page, in CSS pixels."""


def missing_programs() -> list[str]:
    """Return the names of the missing programs."""
    return [name for name in _PROGRAMS if shutil.which(name) is None]


class Browser:
    """One window, and a person's actions in it."""

    def __init__(self, folder: Path) -> None:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for option in (*_OPTIONS, f"--user-data-dir={folder}"):
            options.add_argument(option)
        self.driver = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
        self.look_at(WIDE)

    def close(self) -> None:
        self.driver.quit()

    def open(self, url: str) -> None:
        self.driver.get(url)

    def look_at(self, width: int, height: int = 640, *, dark: bool = False) -> None:
        """Set the window's width; a narrow one is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == NARROW}
        self._devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])

    def let_a_minute_pass(self) -> None:
        """Show at once what appears after a minute."""
        self._devtools("Animation.enable")
        self._devtools("Animation.setPlaybackRate", playbackRate=10_000)

    def find(self, selector: str) -> WebElement:
        """Return the only such element, as soon as it exists."""
        found = wait_until(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), _PATIENCE_SECONDS, f"{selector} on the page"
        )
        return found[0]

    def text(self) -> str:
        """Return the text of the current page."""
        return str(self._evaluate("document.querySelector('main')?.innerText ?? ''"))

    def heading(self, text: str) -> None:
        """Wait for the page with this heading."""
        heading = "document.querySelector('h1')?.textContent ?? ''"
        wait_until(lambda: self._evaluate(heading) == text, _PATIENCE_SECONDS, f"the page {text!r}")

    def fill_in(self, **fields: str) -> None:
        """Replace the fields' values and press the form's button."""
        for name, text in fields.items():
            field = self.find(f"input[name={name}]")
            field.clear()
            field.send_keys(text)
        self.find("form button").click()

    def click(self, text: str) -> None:
        """Follow the link with this text. It may open a new window."""
        before = set(self.driver.window_handles)
        wait_until(lambda: self.driver.find_elements(By.LINK_TEXT, text), _PATIENCE_SECONDS, f"the link {text!r}")
        self.driver.find_element(By.LINK_TEXT, text).click()
        if new := set(self.driver.window_handles) - before:
            self.driver.switch_to.window(new.pop())
            self.look_at(WIDE)

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self._evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def picture(self) -> bytes:
        """Return a PNG of the page, from its top to its end or TALLEST."""
        # The cursor blinks.
        self._evaluate("document.documentElement.style.caretColor = 'transparent'")
        width = int(self._evaluate("innerWidth"))
        height = min(int(self._evaluate("document.documentElement.scrollHeight")), TALLEST)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def _evaluate(self, expression: str) -> Any:
        return self._devtools("Runtime.evaluate", expression=expression)["result"]["value"]

    def _devtools(self, command: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, parameters)
        return answer
