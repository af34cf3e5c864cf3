"""Check that each relative link and anchor of each Markdown file leads somewhere: `python -m tests.docs.links`.

Nothing is asked over the network: links to other sites are not followed.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"(`+)[^`].*?\1", re.DOTALL)
INLINE_LINK: Final = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINED_LINK: Final = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HEADING: Final = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
EXPLICIT_ANCHOR: Final = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


def markdown_files(root: Path) -> Iterator[Path]:
    """Return the Markdown files of a project, without those in hidden folders such as .venv and in node_modules."""
    for path in sorted(root.rglob("*.md")):
        folders = path.relative_to(root).parts[:-1]
        if not any((name.startswith(".") and name != ".github") or name == "node_modules" for name in folders):
            yield path


def broken_links(root: Path) -> list[str]:
    """Return a line for each link of the project's Markdown files that leads nowhere."""
    return [
        f"{path.relative_to(root)}:{line}: {target}: {fault}"
        for path in markdown_files(root)
        for line, target in links(path.read_text())
        if (fault := fault_of(root, path, target))
    ]


def links(text: str) -> Iterator[tuple[int, str]]:
    """Return the line and the target of each link, without what only looks like one in code."""
    prose = CODE.sub(_blank, FENCE.sub(_blank, text))
    for pattern in (INLINE_LINK, DEFINED_LINK):
        for found in pattern.finditer(prose):
            yield prose.count("\n", 0, found.start()) + 1, found[1]


def fault_of(root: Path, path: Path, target: str) -> str | None:
    """Return what is wrong with a link of a file, or None."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    if parts.path.startswith("/"):
        return "a link inside the project has to be relative"
    aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not aim.is_relative_to(root.resolve()) or not aim.exists():
        return "there is no such file"
    if parts.fragment and (aim.suffix != ".md" or unquote(parts.fragment) not in anchors(aim)):
        return "there is no such heading"
    return None


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a Markdown file, as GitHub makes them of its headings."""
    text = FENCE.sub(_blank, path.read_text())
    found = set(EXPLICIT_ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        anchor, count = base, 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return frozenset(found)


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def main() -> None:
    """Print each broken link; exit with 1 if there is one."""
    faults = broken_links(ROOT)
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
