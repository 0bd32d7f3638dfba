"""What every channel module offers, and how it says what became of a message."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from alerts.messages import Message
from alerts.models import AttemptOutcome


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered. `REFUSED` is for good: the channel is switched off; `RETRY` is tried again.

    `is_recipient_fault`: e-mail only, the one address is refused and the channel as such is well.
    `is_message_fault`: this one message cannot be sent for what it says; the channel stays on.
    `is_doubted`: `RETRY`, although it was refused, since that may pass; believed when it is repeated.
    """

    outcome: AttemptOutcome
    status_code: int | None
    text: str
    retry_after_seconds: int | None = None
    is_recipient_fault: bool = False
    is_message_fault: bool = False
    is_doubted: bool = False


class ChannelModule(Protocol):
    """A module of this package: one kind of channel. `config` is what is stored encrypted.

    PagerDuty takes one alert a message (`IS_ONE_BY_ONE`) and no summaries (`TAKES_SUMMARIES`).
    """

    IS_ONE_BY_ONE: bool
    TAKES_SUMMARIES: bool

    def clean(self, config: Mapping[str, str]) -> dict[str, Any]:
        """The configuration to store, from what was typed. Raises `InvalidInput`. Makes no call."""

    def hint(self, config: Mapping[str, Any]) -> str:
        """What may be shown of the configuration; never a secret part."""

    def payload(self, config: Mapping[str, Any], message: Message) -> dict[str, Any]:
        """The body that `send` posts, as the receiver documents it."""

    def send(self, config: Mapping[str, Any], message: Message) -> Answer:
        """Send once. Never raises for what a receiver or network does."""
