"""The switches that make the double behave as badly as the real thing can."""

from dataclasses import dataclass

API_TROUBLES = ("", "500", "429", "timeout", "late")


@dataclass(kw_only=True)
class Faults:
    """Everything that can be made to go wrong. All off to begin with."""

    duplicate: bool = False
    """Each event is delivered twice, with the same body."""
    shuffle: bool = False
    """Events that wait for their first delivery are sent in any order."""
    delay_seconds: float = 0
    """Each event is held back so long, in real time."""
    drop_next: int = 0
    """So many events are never sent."""
    drop_event: str = ""
    """Only events of this name are dropped; empty for any."""
    same_second: bool = False
    """`updated_at` of things that are there already does not advance with their changes."""
    missing_webhook_id: bool = False
    """`meta.webhook_id` is left out, as in old and simulated events."""
    wrong_signature: bool = False
    """`X-Signature` is made with another secret."""
    no_custom_data: bool = False
    """`meta.custom_data` is left out."""
    unknown_variant: bool = False
    """Whatever checkout is paid, the variant sold is 901, which nobody has mapped."""
    unknown_event: bool = False
    """After each change comes one more event, of a name that nobody knows."""
    mode_mismatch: bool = False
    """Deliveries and the API's answers say that this is the live mode."""
    api_trouble: str = ""
    """One of API_TROUBLES. "timeout": no answer in time and nothing is done; "late": it is done, the answer is late."""
    api_trouble_calls: int = 0
    """How many calls meet the trouble; 0 for all, until it is switched off."""
    timeout_seconds: float = 30
    """How long "timeout" and "late" let a client wait, in real time: longer than it has patience."""
