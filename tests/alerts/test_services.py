"""What people do with an alert."""

from datetime import time
from uuid import uuid4

import pytest

from alerts.models import Action, Alert, AlertKind, AlertNote, ChannelKind
from alerts.noticing import raise_alerts
from alerts.services import LONGEST_NOTE, acknowledge, add_note, reopen, resolve
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed, NotFound
from tests.alerts.telling import DAY, HOUR, MINUTE, NOON, add_channel, finding, messages_of, send, set_alerts

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "clock")]

NIGHT = {"quiet_from": time(22), "quiet_until": time(7)}


@pytest.fixture
def opened(cast):
    return cast.opened


@pytest.fixture
def alert(opened):
    [alert] = raise_alerts([finding(opened)], utc_now())
    return alert


def test_acknowledging_says_who_and_when_the_first_time(alert, cast, clock):
    acknowledge(alert, cast.admin)
    clock.shift(MINUTE)
    stored = acknowledge(alert, cast.owner)
    assert (stored.state, stored.acknowledged_by, stored.acknowledged_at) == ("acknowledged", cast.admin, NOON)


def test_resolving_says_who_and_when_the_first_time(alert, cast, clock):
    acknowledge(alert, cast.admin)
    resolve(alert, cast.admin)
    clock.shift(MINUTE)
    stored = resolve(alert, cast.owner)
    assert (stored.state, stored.resolved_by, stored.resolved_at) == ("resolved", cast.admin, NOON)
    assert (stored.resolution, stored.acknowledged_by) == ("", cast.admin)


def test_a_resolved_alert_is_not_acknowledged(alert, cast):
    resolve(alert, cast.admin)
    stored = acknowledge(alert, cast.owner)
    assert (stored.state, stored.acknowledged_by) == ("resolved", None)


@pytest.mark.parametrize("done", [[], [acknowledge], [resolve], [acknowledge, resolve]])
def test_reopening_undoes_it_all(alert, cast, done):
    for deed in done:
        deed(alert, cast.admin)
    stored = reopen(alert, cast.owner)
    assert stored.state == "open"
    assert (stored.acknowledged_at, stored.acknowledged_by, stored.resolved_at, stored.resolved_by) == (None,) * 4


def test_what_resolved_by_itself_is_not_reopened(alert, cast):
    Alert.objects.filter(pk=alert.pk).update(state="resolved", resolved_at=NOON)
    with pytest.raises(NotAllowed, match="by itself"):
        reopen(alert, cast.owner)


def test_what_is_past_is_not_reopened(alert, cast, clock):
    resolve(alert, cast.owner)
    clock.shift(2 * DAY)
    with pytest.raises(NotAllowed, match="Its time is over"):
        reopen(alert, cast.owner)


def test_an_alert_that_a_newer_one_repeats_is_not_reopened(alert, opened, cast):
    resolve(alert, cast.owner)
    raise_alerts([finding(opened, severity="critical")], utc_now())
    with pytest.raises(NotAllowed, match="newer alert"):
        reopen(alert, cast.owner)


def test_a_recovery_is_not_reopened(alert, cast):
    Alert.objects.filter(pk=alert.pk).update(kind=AlertKind.RECOVERY, state="resolved", resolved_by=cast.owner)
    with pytest.raises(NotAllowed):
        reopen(alert, cast.owner)


@pytest.mark.parametrize("deed", [acknowledge, resolve, reopen])
def test_an_alert_that_is_gone_is_not_found(cast, deed):
    with pytest.raises(NotFound):
        deed(Alert(id=uuid4(), workspace=cast.workspace), cast.owner)


def test_resolving_takes_the_alert_out_of_what_is_held(opened, cast, clock):
    set_alerts(opened, **NIGHT)
    clock.shift(11 * HOUR)
    first, second = raise_alerts([finding(opened), finding(opened, scope="model:x")], utc_now())
    resolve(first, cast.owner)
    messages = messages_of(opened)
    assert {message.state for message in messages} == {"waiting"}
    assert all(list(message.alerts.all()) == [second] for message in messages)
    resolve(second, cast.owner)
    assert {message.state for message in messages_of(opened)} == {"cancelled"}


def test_acknowledging_leaves_what_is_held(opened, cast, clock):
    set_alerts(opened, **NIGHT)
    clock.shift(11 * HOUR)
    [alert] = raise_alerts([finding(opened)], utc_now())
    acknowledge(alert, cast.owner)
    assert {message.state for message in messages_of(opened)} == {"waiting"}


def test_what_is_on_its_way_is_not_called_back(alert, opened, cast):
    resolve(alert, cast.owner)
    assert {message.state for message in messages_of(opened)} == {"waiting"}


def test_pagerduty_hears_of_it_once(opened, cast):
    add_channel(opened, ChannelKind.PAGERDUTY)
    [alert] = raise_alerts([finding(opened)], utc_now())
    send(opened)
    resolve(alert, cast.owner)
    resolve(alert, cast.owner)
    [message] = messages_of(opened, Action.RESOLVE)
    assert (message.channel_kind, list(message.alerts.all())) == ("pagerduty", [alert])


def test_notes_are_kept_in_full(alert, cast):
    note = add_note(alert, cast.member, "  Looked at it.\r\nThe new prompt is longer. ")
    assert (note.text, note.author, note.created_at) == ("Looked at it.\nThe new prompt is longer.", cast.member, NOON)


def test_the_same_note_sent_twice_is_one(alert, cast, clock):
    assert add_note(alert, cast.member, "Mine.") == add_note(alert, cast.member, "Mine.")
    add_note(alert, cast.admin, "Mine.")
    clock.shift(5 * MINUTE)
    add_note(alert, cast.member, "Mine.")
    assert AlertNote.objects.filter(alert=alert).count() == 3


@pytest.mark.parametrize("text", ["", "  \n ", "x" * (LONGEST_NOTE + 1), "a\x00b", "a\ud800b"])
def test_a_note_that_is_none_says_why(alert, cast, text):
    with pytest.raises(InvalidInput) as refusal:
        add_note(alert, cast.member, text)
    assert [error.field for error in refusal.value.errors] == ["text"]
    assert not AlertNote.objects.exists()


def test_the_longest_note_fits(alert, cast):
    assert len(add_note(alert, cast.member, "x" * LONGEST_NOTE).text) == LONGEST_NOTE
