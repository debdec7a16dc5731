"""A strict reader of pages."""

import re
from html.parser import HTMLParser

import pytest

VOID = {"meta", "input", "br", "img", "hr", "link"}


class Page(HTMLParser):
    """Elements and text of a page; fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements, self.text, self.tables = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), (tag, attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attributes).get("id", len(self.tables)), [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_self_contained(text):
    parsed = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", text)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")]
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for attributes in parsed.all("a"):
        assert attributes["href"][1:] in ids
    for attributes in parsed.all("label"):
        assert attributes.get("for", ids[0]) in ids
    return parsed


@pytest.fixture
def parse():
    """Reads a page: its elements, its text, the cells of its tables."""
    return Page


@pytest.fixture
def parse_self_contained():
    """The same, after checking that the page needs nothing but itself."""
    return assert_self_contained
