from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from alerts.models import Alert, Handling
from alerts.selectors import Messages
from alerts.telling import moment, told
from tests.alerts.inbox import NOON

BERLIN = ZoneInfo("Europe/Berlin")
LATER = NOON + timedelta(minutes=5)
SOON = NOON + timedelta(minutes=20)
BEFORE = NOON - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("handling", "held_until", "messages", "words"),
    [
        (Handling.SENT, None, Messages(sent=2, total=2), "Sent at once"),
        (Handling.SENT, None, Messages(), "Sent at once"),
        (Handling.SENT, None, Messages(under_way=1, total=1), "Being sent"),
        (Handling.SENT, None, Messages(sent=1, under_way=2, total=3), "Sent at once; 2 more on the way"),
        (Handling.SENT, None, Messages(sent=1, failed=1, total=2), "Sent at once; 1 not delivered"),
        (Handling.SENT, None, Messages(total=1), "Withdrawn before it was sent"),
        (Handling.COOLDOWN, SOON, Messages(under_way=1, total=1), "Held by the cooldown until 13:20"),
        (Handling.COOLDOWN, BEFORE, Messages(under_way=1, total=1), "Held by the cooldown, being sent"),
        (Handling.COOLDOWN, SOON, Messages(total=1), "Held by the cooldown, withdrawn before it was sent"),
        (
            Handling.QUIET_HOURS,
            BEFORE,
            Messages(sent=1, failed=2, total=3, last_sent_at=BEFORE),
            "Held by quiet hours, sent 12:59; 2 not delivered",
        ),
        (Handling.SUMMARY, None, Messages(), "Told in the summary"),
        (Handling.INBOX, None, Messages(), "In the inbox only"),
        (Handling.PLAN, None, Messages(), "Not sent at once on this plan: told in the summary if the plan has one"),
        (Handling.NOBODY, None, Messages(), "Told to nobody: no channel and no recipient takes it"),
    ],
)
def test_how_people_heard_of_it(handling, held_until, messages, words):
    assert told(Alert(handling=handling, held_until=held_until), messages, BERLIN, NOON) == words


def test_another_day_is_named():
    assert moment(LATER, BERLIN, NOON) == "13:05"
    assert moment(NOON + timedelta(hours=11), BERLIN, NOON) == "11 Nov, 00:00"
