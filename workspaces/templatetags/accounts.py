"""What the pages of a person's account use."""

from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

# Words of a browser's name for itself, and what they mean. The first that is found counts: each claims to be the next.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


@register.filter
def browser(user_agent: str) -> str:
    """Such as "Firefox on Windows"; what is none of the usual browsers keeps its name as it was sent, cut short."""
    browser = next((name for word, name in _BROWSERS if word in user_agent), None)
    system = next((name for word, name in _SYSTEMS if word in user_agent), None)
    if browser and system:
        return f"{browser} on {system}"
    return browser or user_agent[:40] or "Unknown"


@register.simple_tag(takes_context=True)
def account_tab(context: template.Context, name: str, label: str, *other_names: str) -> SafeString:
    """A link to the page `name`; the current one also on pages below it and on `other_names`."""
    url, path = reverse(name), context["request"].path
    is_current = path.startswith(url) or path in map(reverse, other_names)
    current: Any = SafeString(' aria-current="page"') if is_current else ""
    return format_html('<a href="{}"{}>{}</a>', url, current, label)
