"""The check of links finds each kind of broken one, and nothing else."""

from pathlib import Path

import pytest

from tests.docs.links import broken_links, markdown_files

PAGE = """# A page, with `code` and [a link](other.md)

## Twice

## Twice

[good](other.md), ![a picture](images/one.png), [here](#twice-1), [up](../README.md#the-project), [out](https://nowhere.invalid/x)

```sh
echo "[not a link](nowhere.md)"
```

Neither is `[this](nowhere.md)`.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# The project\n\n[docs](docs/page.md#a-page-with-code-and-a-link)\n")
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    (tmp_path / "docs" / "other.md").write_text("# Other\n")
    (tmp_path / "docs" / "images" / "one.png").touch()
    return tmp_path


def test_good_links_are_good(project: Path) -> None:
    assert broken_links(project) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[x](nowhere.md)", "there is no such file"),
        ("[x](images/two.png)", "there is no such file"),
        ("[x](other.md#nowhere)", "there is no such heading"),
        ("[x](#twice-2)", "there is no such heading"),
        ("[x](images/one.png#nowhere)", "there is no such heading"),
        ("[x](../../outside.md)", "there is no such file"),
        ("[x](/docs/other.md)", "a link inside the project has to be relative"),
        ("[x]\n\n[x]: nowhere.md", "there is no such file"),
    ],
)
def test_broken_link_is_found_with_its_line(project: Path, link: str, fault: str) -> None:
    page = project / "docs" / "page.md"
    page.write_text(f"{PAGE}\n{link}\n")

    [line] = broken_links(project)

    assert line.startswith("docs/page.md:")
    assert line.endswith(fault)


def test_hidden_folders_are_left_out(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "README.md").write_text("[x](nowhere.md)")

    assert {path.name for path in markdown_files(project)} == {"README.md", "page.md", "other.md"}
