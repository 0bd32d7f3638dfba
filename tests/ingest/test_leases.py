"""Leases as people look at them, and one given up by hand: what was held is free again for everybody at once."""

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from ingest.leases import live_leases, release_lease
from ingest.models import Hold, Lease
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotFound
from tests.ingest.gateway.limits import limit
from tests.ingest.gateway.test_asks_leases import held, lease
from workspaces.models import AuditEntry

NOON = utc_now().replace(hour=12, minute=0, second=0, microsecond=0)
LABELS = {"tenantId": "acme"}


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def names(meter, kind="", value="", most=10):
    return [
        each.external_request_id
        for each in live_leases(meter.workspace_id, kind, value, utc_now(), most=most).next_to_end
    ]


@pytest.mark.usefixtures("clock")
def test_a_released_lease_frees_every_budget_that_held_it(meter):
    limit(meter, 10)
    limit(meter, 5, scope_kind="tenant_id", scope_value="acme")
    limit(meter, 5, scope_kind="model", is_each_value=True)
    lease(meter, "a", 1, **LABELS)
    lease(meter, "b", 2, **LABELS)
    assert held(meter, **LABELS) == 3

    released = release_lease(meter.workspace_id, "a", acting_user=None)

    assert (released.outcome, released.closed_at) == ("released", utc_now())
    assert held(meter, **LABELS) == 2
    assert {hold.usd for hold in Hold.objects.filter(workspace_id=meter.workspace_id)} == {Decimal(2)}
    entry = AuditEntry.objects.get(action="lease.released", workspace_id=meter.workspace_id)
    assert (entry.target, entry.data["usd"]) == ("a", "1.000000000000")
    with pytest.raises(NotFound):
        release_lease(meter.workspace_id, "a", acting_user=None)
    assert held(meter, **LABELS) == 2
    assert lease(meter, "a", 3, **LABELS)["allowed"] is True


def test_what_is_over_is_not_live_any_more(meter, clock):
    lease(meter, "a", 1, leaseSeconds=60)
    clock.move_to(NOON + timedelta(seconds=60))
    assert names(meter) == []
    with pytest.raises(NotFound):
        release_lease(meter.workspace_id, "a", acting_user=None)


@pytest.mark.usefixtures("clock")
def test_a_lease_of_a_data_mode_that_does_not_count_holds_nothing(meter):
    limit(meter, 10)
    lease(meter, "real", 1)
    lease(meter, "test", 2, dataMode="test")
    assert names(meter) == ["real"]
    release_lease(meter.workspace_id, "test", acting_user=None)
    assert held(meter) == 1


@pytest.mark.usefixtures("clock")
def test_those_of_a_scope_that_end_next_come_first(meter):
    for name, seconds, tenant in (("late", 300, "acme"), ("soon", 60, "acme"), ("other", 30, "zeta")):
        lease(meter, name, 1, leaseSeconds=seconds, tenantId=tenant)
    assert names(meter) == ["other", "soon", "late"]
    assert names(meter, "tenant_id", "acme") == ["soon", "late"]
    assert names(meter, "tenant_id") == ["other", "soon", "late"]
    found = live_leases(meter.workspace_id, "tenant_id", "acme", utc_now(), most=1)
    assert (len(found.next_to_end), found.number, found.usd) == (1, 2, 2)


@pytest.mark.usefixtures("clock")
def test_leases_of_other_workspaces_are_nobodys_business(meter, client_of):
    other = client_of()
    lease(other, "theirs", 1)
    with pytest.raises(NotFound):
        release_lease(meter.workspace_id, "theirs", acting_user=None)
    assert Lease.objects.get(workspace_id=other.workspace_id).closed_at is None
