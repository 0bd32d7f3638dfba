"""Ready-to-paste code for the first event, with the reader's address and API key in it."""

from dataclasses import dataclass

from django.template.loader import render_to_string

PLACEHOLDER_KEY = "om_live_…"
_LANGUAGES = (("curl", "curl"), ("python", "Python"), ("node", "Node"), ("dotnet", ".NET"))


@dataclass(frozen=True, slots=True)
class Snippet:
    """One language's code; `name` is also the file's."""

    name: str
    label: str
    code: str


def first_event_snippets(address: str, api_key: str) -> list[Snippet]:
    """The same small event in every language. `address`: of this installation, without a slash at the end."""
    facts = {"address": address, "api_key": api_key}
    return [
        Snippet(name, label, render_to_string(f"console/snippets/{name}.txt", facts).strip())
        for name, label in _LANGUAGES
    ]
