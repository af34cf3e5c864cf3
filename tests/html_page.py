"""Parse an HTML page into its forms and fields, what it loads, and its text."""

from html.parser import HTMLParser

from werkzeug.test import TestResponse


class Page(HTMLParser):
    """A page that the API answered with."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__()
        self.forms: list[dict[str, str | None]] = []
        self.fields: dict[str, str | None] = {}
        self.inputs: dict[str, dict[str, str | None]] = {}
        self.key = ""
        self.labels: list[str | None] = []
        self.buttons = 0
        self.loaded: list[str] = []
        self.scripts = 0
        self.texts: dict[str, str] = {}
        self.text = ""
        self._named: str | None = None
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._named = values.get("id")
        if tag in {"link", "img"}:
            self.loaded.append(values.get("href") or values["src"] or "")
        elif tag == "form":
            self.forms.append(values)
        elif tag == "input" and values["name"] == "idempotency_key":
            self.key = values["value"] or ""
        elif tag == "input":
            self.fields[values["name"] or ""] = values["value"]
            self.inputs[values["name"] or ""] = values
        elif tag == "label":
            self.labels.append(values["for"])
        elif tag == "button":
            self.buttons += 1
        elif tag in {"script", "style"} or any(name.startswith("on") or name == "style" for name in values):
            self.scripts += 1

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._named is not None:
            self.texts[self._named] = self.texts.get(self._named, "") + data

    def handle_endtag(self, _tag: str) -> None:
        self._named = None
