"""The contrast of every colour of pages and mails with its background: WCAG 2.2, level AA."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSS = ROOT / "api" / "static"
MAIL = ROOT / "consumer" / "templates" / "layout.html"

TEXT = 4.5
EDGE = 3.0
"""The contrast that an input's border needs."""

PAIRS = [
    *[(text, ground, TEXT) for text in ("ink", "soft", "accent") for ground in ("card", "paper", "tint")],
    ("bad", "card", TEXT),
    ("ink", "bad-tint", TEXT),
    ("on-accent", "accent", TEXT),
    ("edge", "card", EDGE),
    ("get", "card", TEXT),
    ("post", "card", TEXT),
    ("ink", "code", TEXT),
]
MAIL_PAIRS = [("ink", "card"), ("ink", "paper"), ("soft", "card"), ("soft", "paper"), ("link", "card")]


def palette(scheme: str) -> dict[str, str]:
    """Return the colours of one scheme: the light one's, overridden by the dark one's."""
    colours: dict[str, str] = {}
    for sheet in ("pages.css", "docs.css"):
        text = (CSS / sheet).read_text()
        blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
        assert len(blocks) == 2
        for block in blocks if scheme == "dark" else blocks[:1]:
            colours.update(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block))
    return colours


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(each * 2 for each in digits)
    channels = [int(digits[start:end], 16) / 255 for start, end in pairwise((0, 2, 4, 6))]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
def test_colours_of_the_pages_can_be_read(scheme: str, text: str, ground: str, least: float) -> None:
    colours = palette(scheme)

    assert contrast(colours[text], colours[ground]) >= least


@pytest.mark.parametrize(("text", "ground"), MAIL_PAIRS)
def test_colours_of_the_mails_in_the_dark_can_be_read(text: str, ground: str) -> None:
    colours = dict(re.findall(r"\.([a-z]+) \{ (?:background-)?color: (#[0-9a-f]{6})", MAIL.read_text()))

    assert contrast(colours[text], colours[ground]) >= TEXT


@pytest.mark.parametrize("template", ["layout.html", "verify_email.html", "welcome_email.html"])
def test_colours_of_the_mails_by_day_can_be_read(template: str) -> None:
    text = re.sub(r"<style>.*</style>", "", (MAIL.parent / template).read_text(), flags=re.DOTALL)

    found = set(re.findall(r"(?<!-)color:(#[0-9a-f]{6})", text))
    # White is only used on the button.
    grounds = {colour: ["#2250cc"] if colour == "#ffffff" else ["#ffffff", "#f2f4f8"] for colour in found}
    assert found
    assert all(contrast(colour, ground) >= TEXT for colour, on in grounds.items() for ground in on)
