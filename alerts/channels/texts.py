"""What the layouts of a message have in common: long texts are cut, and of many alerts the first ones are shown."""

from collections.abc import Sequence

from alerts.messages import AlertItem, Message
from alerts.models import Action

MOST_ITEMS = 10
_ELLIPSIS = "…"


def cut(text: str, longest: int) -> str:
    """`text`, or its beginning with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + _ELLIPSIS


def listed(message: Message) -> Sequence[AlertItem]:
    """The alerts that are told one by one below the message's own text; a single one is that text already."""
    return message.items if len(message.items) > 1 else ()


def rest(message: Message, shown: int) -> str:
    """What is said of the alerts after the first `shown`; empty if there are none."""
    others = len(listed(message)) - shown
    return f"and {others:,} more in the inbox" if others > 0 else ""


def item_title(item: AlertItem) -> str:
    """The alert's title, and whether it is over."""
    return f"{item.title} (has cleared since)" if item.has_cleared else item.title


def button(message: Message) -> str:
    """What the link to the console says."""
    match message.action:
        case Action.REPORT:
            return "Open the summary"
        case Action.TEST | Action.CHANNEL_OFF:
            return "Open the channels"
    return "Open the inbox" if listed(message) else "Open the alert"
