"""The developer docs as a reader has them: pages, and the code blocks in them."""

import re
from dataclasses import dataclass
from typing import Any

from django.test import Client

from opsmeter_site.console.docs_pages import PAGES
from opsmeter_site.embedded.docs_examples import example
from tests.factories import UserFactory
from tests.pages import Node, page
from workspaces.models import Workspace

BLOCK = re.compile(r'<code id="code-([\w-]+)">')


@dataclass
class Visitor:
    """Somebody who reads the docs at `host`, signed in or not."""

    browser: Client
    host: str = "testserver"
    workspace: Any = None

    @property
    def address(self) -> str:
        return f"http://{self.host}"

    def get(self, path: str) -> Any:
        return self.browser.get(path, headers={"Host": self.host})

    def html(self, path: str) -> str:
        response = self.get(path)
        assert response.status_code == 200, path
        return response.content.decode()

    def node(self, path: str) -> Node:
        return page(self.get(path))

    def code(self, path: str, block: str) -> str:
        """The text of a code block, such as "send-python"."""
        return example(self.html, path, block)

    def all_code(self) -> dict[str, str]:
        """Every code block of every page."""
        pages = [(one.url, self.html(one.url)) for one in PAGES.values()]
        return {name: example(lambda _path, text=text: text, url, name) for url, text in pages for name in blocks(text)}


def blocks(html: str) -> list[str]:
    """The names of a page's code blocks."""
    return BLOCK.findall(html)


def new_person(host: str = "testserver") -> Visitor:
    """Somebody who has just signed up and made a workspace: its first key is still in the session."""
    visitor = Visitor(Client(), host)
    person = UserFactory()
    visitor.browser.force_login(person)
    visitor.browser.post("/workspaces/new/", {"name": "Docs", "timezone": "UTC"})
    visitor.workspace = Workspace.objects.get(memberships__user=person)
    visitor.get(f"/w/{visitor.workspace.slug}/start/")
    return visitor
