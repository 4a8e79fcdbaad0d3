"""A report's page as its tests see it."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects tags and text, and checks that they are nested."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.marked: list[tuple[str, str]] = []
        """Texts of <mark>, <del> and <ins>."""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style",):
            self.words.append(data.strip())
        if self.open and self.open[-1] in ("mark", "del", "ins"):
            self.marked.append((self.open[-1], data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def check_loads_nothing(self) -> None:
        """No script, and nothing that a browser would fetch."""
        assert "script" not in self.tags
        names = {name for name, _ in self.attributes}
        assert not names & {"src", "href", "onload", "onerror", "onclick", "action", "data", "srcset"}
        assert not {"link", "img", "iframe", "object", "embed", "form"} & set(self.tags)
        assert "url(" not in self.html
        assert "@import" not in self.html
        assert "http" not in self.html.replace("http-equiv", "")
