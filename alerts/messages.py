"""A message as every channel gets it: plain values, composed anew for each attempt. Channels only lay it out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from alerts.models import Action, AlertKind, Severity

# What programs get of an alert: an amount, a number, a word, or several.
Figure = Decimal | int | str | list[str]


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled value for people, such as ("Spent", "$41.25 of $50")."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture inside a mail; HTML refers to it as `cid:<name>`."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """What a mail consists of besides its recipient."""

    subject: str
    text: str
    html: str
    images: tuple[InlineImage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertItem:
    """One alert inside a message. `url` opens it in the console, `budget_url` the budget that it is about, if any.

    `has_cleared` says how it stands at sending time. `figures` are what is behind it, for programs; `facts` say it to
    people.
    """

    id: str
    kind: AlertKind
    severity: Severity
    title: str
    text: str
    facts: tuple[Fact, ...]
    url: str
    dedup_key: str
    opened_at: datetime
    window_start: datetime
    window_end: datetime
    has_cleared: bool
    figures: Mapping[str, Figure] = field(default_factory=dict)
    budget_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one delivery says. `id` is the delivery's id: a receiver that has seen it may ignore it.

    `items` are the alerts that it tells (one, or several that were held together); a summary has none. `mail` is there
    for e-mail only.
    """

    id: str
    action: Action
    severity: Severity
    workspace_id: str
    workspace_name: str
    workspace_slug: str
    title: str
    text: str
    url: str
    created_at: datetime
    facts: tuple[Fact, ...] = ()
    items: tuple[AlertItem, ...] = ()
    mail: Mail | None = None
    recipient: str = ""
    unsubscribe_url: str = ""
