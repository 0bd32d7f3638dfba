"""What tests of the pages about prices share: a workspace, a catalogue, and people with browsers."""

import re
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from tests.factories import OperatorFactory, make_cast
from tests.prices import bring_in, says, usd
from workspaces.models import Role
from workspaces.services import add_member

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = {"provider": "openai", "model": "gpt"}
ENTRY = {
    **MODEL,
    "input_usd_per_1m": "1.8",
    "output_usd_per_1m": "7",
    "effective_from": "2026-01-01T00:00",
    "service_tier": "standard",
    "context_above": "0",
}


def enterprise():
    """An Enterprise workspace, and a catalogue of one model: 2 USD in, 8 USD out."""
    bring_in(says(usd("2", "8", "0.5")), aliases=[("gpt-latest", "gpt")])
    return make_cast("enterprise")


def operator_in(cast, *permissions):
    """An operator who is a viewer of the workspace, with exactly these permissions."""
    person = OperatorFactory(is_superuser=False)
    person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    add_member(cast.workspace, person, Role.VIEWER, acting_user=cast.owner)
    return person


class Browser:
    """A person's browser in one workspace."""

    def __init__(self, cast, person):
        self.slug = cast.workspace.slug
        self.client = Client()
        self.client.force_login(person)

    def url(self, name, **args):
        return reverse(name, kwargs={"slug": self.slug, **args})

    def get(self, name, status=200, headers=None, args=None, **query):
        url = self.url(name, **(args or {})) + ("?" + urlencode(query) if query else "")
        response = self.client.get(url, headers=headers or {})
        assert response.status_code == status, response.content
        return response

    def post(self, name, body, status=302, **args):
        response = self.client.post(self.url(name, **args), body)
        assert response.status_code == status, response.content
        return response


def text(response):
    """What a reader sees of a page."""
    words = re.sub(r"<(script|style|svg|head).*?</\1>|<[^>]+>", " ", response.content.decode(), flags=re.DOTALL)
    return " ".join(words.replace("&#x27;", "'").split())
