"""Ready-to-paste code with the reader's address and API key in it: for the first event, and for the developer docs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.template.loader import render_to_string

PLACEHOLDER_KEY = "om_live_…"
_LABELS = {
    "curl": "curl",
    "python": "Python",
    "node": "Node",
    "dotnet": ".NET",
    "javascript": "JavaScript",
    "json": "JSON",
    "shell": "Shell",
}
_PROGRAMS = ("curl", "python", "node", "dotnet")

# The docs' code blocks and the languages in which each is written: `templates/docs/code/<block>.<language>.txt`.
BLOCKS: Mapping[str, Sequence[str]] = {
    "accepted": ("json",),
    "batch": ("curl", "python", "node"),
    "batch_answer": ("json",),
    "budget_exceeded": ("json",),
    "budget_new": ("curl",),
    "cancel": ("curl",),
    "cancel_answer": ("json",),
    "change_plan": ("json",),
    "change_plan_ask": ("curl",),
    "check": ("curl",),
    "check_answer": ("json",),
    "checkout": ("curl",),
    "checkout_answer": ("json",),
    "clean_up": ("curl",),
    "client": ("javascript",),
    "demo": ("curl",),
    "first": _PROGRAMS,
    "invalid": ("json",),
    "lease": ("python", "node"),
    "lease_answer": ("json",),
    "messages": ("javascript",),
    "otlp": ("shell",),
    "payload": ("json",),
    "plan_limit": ("json",),
    "portal": ("curl",),
    "portal_answer": ("json",),
    "prices": ("curl",),
    "prices_answer": ("json",),
    "rate_limited": ("json",),
    "resume": ("curl",),
    "retry": ("python", "node"),
    "send": _PROGRAMS,
    "standing": ("curl",),
    "standing_answer": ("json",),
    "status": ("json",),
    "status_bearer": ("curl",),
    "status_key": ("curl",),
    "toast": ("javascript",),
    "verify": ("shell",),
    "webhook": ("python", "node"),
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """One block in one language. `name` tells it from every other: "python", or "send-python" in the docs."""

    name: str
    label: str
    code: str


def first_event_snippets(address: str, api_key: str) -> list[Snippet]:
    """The same small event in every language. `address`: of this installation, without a slash at the end."""
    facts = {"address": address, "api_key": api_key}
    return [
        Snippet(language, _LABELS[language], _code(f"console/snippets/{language}.txt", facts)) for language in _PROGRAMS
    ]


class CodeBlocks:
    """The docs' blocks by name, each filled in when a template asks for it.

    `facts` are what the templates of the blocks read: `address`, `api_key` and `next_plans`.
    """

    def __init__(self, facts: Mapping[str, object]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, block: str) -> list[Snippet]:
        return [
            Snippet(f"{block}-{language}", _LABELS[language], _code(f"docs/code/{block}.{language}.txt", self._facts))
            for language in BLOCKS[block]
        ]


def _code(template: str, facts: Mapping[str, object]) -> str:
    return render_to_string(template, dict(facts)).strip("\n")
