from datetime import UTC, time, timedelta

import pytest

from alerts.models import AlertKind, AlertSettings, Mode
from alerts.preferences import preferences_of
from alerts.quiet_hours import QuietHours
from alerts.settings_services import SettingsChanged, change_alert_settings, update_alert_settings, version_of
from opsmeter_site.lib.errors import InvalidInput
from tests.factories import make_workspace
from workspaces.audit_words import deed, values
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened():
    return make_workspace("pro", timezone="Europe/Berlin")


def update(opened, **changes):
    return update_alert_settings(opened.workspace, acting_user=opened.owner, **changes)


def trail(opened):
    return list(AuditEntry.objects.filter(workspace=opened.workspace, action="alert_settings.changed").order_by("pk"))


def test_everything_can_be_changed_and_is_audited_in_words(opened):
    new = update(
        opened,
        modes={"budget_warning": "weekly"},
        cooldown_seconds=60,
        quiet_from=time(22),
        quiet_until=time(7, 30),
        recipient_roles=["viewer", "owner"],
    )
    assert new == preferences_of(opened.workspace.pk)
    assert new.modes[AlertKind.BUDGET_WARNING] is Mode.WEEKLY
    assert new.modes[AlertKind.BUDGET_EXCEEDED] is Mode.IMMEDIATE
    assert new.cooldown == timedelta(minutes=1)
    assert new.quiet_hours == QuietHours(time(22), time(7, 30))
    assert set(new.recipient_roles) == {"owner", "viewer"}
    (entry,) = trail(opened)
    assert deed(entry) == "changed how alerts are told"
    assert {(each.label, each.before, each.after) for each in values(entry, opened.workspace.timezone)} == {
        ("Budget warning", "Immediately", "In the weekly summary"),
        ("Cooldown seconds", "300", "60"),
        ("Quiet from", "–", "22:00"),
        ("Quiet until", "–", "07:30"),
        ("Recipient roles", "owner, admin", "owner, viewer"),
    }


def test_one_change_leaves_the_rest_alone(opened):
    AlertSettings.objects.create(workspace=opened.workspace, spike_is_on=False)
    update(opened, cooldown_seconds=0)
    update(opened, modes={"unit_cost": "daily"})
    update(opened, quiet_from=time(1), quiet_until=time(2))
    update(opened, modes={"recovery": "inbox"})
    stored = AlertSettings.objects.get(workspace=opened.workspace)
    assert (stored.cooldown_seconds, stored.quiet_from, stored.spike_is_on) == (0, time(1), False)
    assert stored.modes == {"unit_cost": "daily", "recovery": "inbox"}


def test_what_is_usual_is_not_stored(opened):
    update(opened, modes={"unit_cost": "daily"})
    update(opened, modes={"unit_cost": "immediate"})
    assert AlertSettings.objects.get(workspace=opened.workspace).modes == {}


def test_quiet_hours_are_removed_by_removing_both_ends(opened):
    update(opened, quiet_from=time(22), quiet_until=time(7))
    assert update(opened, quiet_from=None, quiet_until=None).quiet_hours is None


def test_nothing_is_written_when_nothing_changes(opened):
    update(opened, modes={"budget_warning": "immediate"}, cooldown_seconds=300, recipient_roles=["admin", "owner"])
    assert not AlertSettings.objects.filter(workspace=opened.workspace).exists()
    assert trail(opened) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cooldown_seconds": -1}, "cooldown_seconds"),
        ({"cooldown_seconds": 86_401}, "cooldown_seconds"),
        ({"quiet_from": time(22)}, "quiet_until"),
        ({"quiet_until": time(7)}, "quiet_from"),
        ({"quiet_from": time(7), "quiet_until": time(7)}, "quiet_until"),
        ({"quiet_from": time(22, 0, 1), "quiet_until": time(7)}, "quiet_from"),
        ({"quiet_from": time(22, tzinfo=UTC), "quiet_until": time(7)}, "quiet_from"),
        ({"modes": {"no_such_kind": "daily"}}, "modes"),
        ({"modes": {"budget_warning": "hourly"}}, "modes"),
        ({"recipient_roles": ["king"]}, "recipient_roles"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(opened, changes, field):
    with pytest.raises(InvalidInput) as refusal:
        update(opened, **changes)
    assert [error.field for error in refusal.value.errors] == [field]
    assert not AlertSettings.objects.filter(workspace=opened.workspace).exists()


def test_the_longest_and_the_shortest_cooldown_are_allowed(opened):
    assert update(opened, cooldown_seconds=86_400).cooldown == timedelta(days=1)
    assert not update(opened, cooldown_seconds=0).cooldown


def test_who_has_seen_older_settings_is_told(opened):
    seen = version_of(preferences_of(opened.workspace.pk))
    now = update(opened, cooldown_seconds=60)
    with pytest.raises(SettingsChanged) as conflict:
        change_alert_settings(opened.workspace, acting_user=opened.owner, seen=seen, cooldown_seconds=30)
    assert (conflict.value.now, conflict.value.wanted.cooldown) == (now, timedelta(seconds=30))
    same = change_alert_settings(opened.workspace, acting_user=opened.owner, seen=seen, cooldown_seconds=60)
    assert not same.is_one


def test_the_version_is_about_what_the_form_shows(opened):
    before = version_of(preferences_of(opened.workspace.pk))
    assert version_of(update(opened, recipient_roles=["owner"])) == before
    assert version_of(update(opened, quiet_from=time(22), quiet_until=time(7))) != before
