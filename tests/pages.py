"""Pages as a reader sees them: texts of elements and rows of tables, without a browser."""

import re
from html import unescape
from html.parser import HTMLParser

from django.test import Client

_VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr", "path", "rect", "line", "circle"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        for place in range(len(self.open) - 1, 0, -1):
            if self.open[place].tag == tag:
                del self.open[place:]
                return

    def handle_data(self, data):
        self.open[-1].children.append(data)


class Node:
    """An element with its children."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Node | str] = []

    @property
    def text(self) -> str:
        """What it says, with single spaces."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return re.sub(r"\s+", " ", unescape(" ".join(parts))).strip()

    def all(self, tag: str = "", css_class: str = "", **attributes: str) -> "list[Node]":
        """Every element below that has this tag, class and attributes."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if child._is(tag, css_class, attributes):
                    found.append(child)
                found += child.all(tag, css_class, **attributes)
        return found

    def one(self, tag: str = "", css_class: str = "", **attributes: str) -> "Node":
        """The first of them; fails if there is none."""
        found = self.all(tag, css_class, **attributes)
        assert found, f"no <{tag} class={css_class} {attributes}> in: {self.text[:500]}"
        return found[0]

    def _is(self, tag: str, css_class: str, attributes: dict[str, str]) -> bool:
        return (
            tag in ("", self.tag)
            and (not css_class or css_class in self.attributes.get("class", "").split())
            and all(self.attributes.get(name.replace("_", "-").strip("-")) == each for name, each in attributes.items())
        )

    def rows(self) -> list[list[str]]:
        """The texts of a table's body, row by row."""
        return [
            [cell.text for cell in row.children if isinstance(cell, Node)]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


def page(response) -> Node:
    """The page of a test client's answer."""
    reader = _Reader()
    reader.feed(response.content.decode())
    return reader.root


def signed_in(person):
    """Their browser."""
    client = Client()
    client.force_login(person)
    return client
