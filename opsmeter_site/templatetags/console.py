"""What templates of the console use: figures for reading, moments in the workspace's zone, icons, toasts."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.contrib.messages.storage.base import Message
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from opsmeter_site.lib import formats
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.toasts import UNDO_TAG

register = template.Library()

register.filter("usd", formats.usd)
register.filter("usd_change", formats.usd_change)
register.filter("usd_fine", formats.usd_fine)
register.filter("usd_exact", formats.usd_exact)
register.filter("count", formats.count)
register.filter("compact", formats.compact)
register.filter("share", formats.share)
register.filter("change", formats.change)
register.filter("ms", formats.milliseconds)


@register.filter
def local(moment: datetime | None, zone: ZoneInfo | str = "UTC") -> SafeString | str:
    """The moment in `zone`, with the UTC time behind it."""
    if moment is None:
        return formats.NOTHING
    there = moment.astimezone(ZoneInfo(str(zone)))
    utc = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        f"{utc:%Y-%m-%dT%H:%M:%SZ}",
        f"{utc:%Y-%m-%d %H:%M:%S}",
        f"{there:%-d %b %Y, %H:%M}",
    )


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago the moment was, with the UTC time behind it."""
    if moment is None:
        return "never"
    utc = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        f"{utc:%Y-%m-%dT%H:%M:%SZ}",
        f"{utc:%Y-%m-%d %H:%M:%S}",
        formats.ago(moment, utc_now()),
    )


@register.simple_tag
def icon(name: str) -> SafeString:
    """The inline SVG of `templates/icons/<name>.svg`; decoration, so it is hidden from screen readers."""
    return SafeString(render_to_string(f"icons/{name}.svg"))


@register.inclusion_tag("console/_toast.html", takes_context=True)
def toast(context: template.Context, message: Message) -> dict[str, Any]:
    """One message, with its Undo button if it has one."""
    tags = message.extra_tags or ""
    undo = json.loads(tags.removeprefix(UNDO_TAG)) if tags.startswith(UNDO_TAG) else None
    return {"message": message, "undo": undo, "csrf_token": context.get("csrf_token")}
