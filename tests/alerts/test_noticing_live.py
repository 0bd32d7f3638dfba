"""From an event that programs send to the inbox, through the product as it runs."""

from decimal import Decimal

from alerts.noticing import notice_crossings
from ingest.models import LimitCrossing
from opsmeter_site.lib.clock import utc_now
from tests.alerts.telling import alerts_of, messages_of, set_budget, told
from tests.conftest import Client


def test_the_event_that_goes_over_the_budget_is_in_the_inbox_and_on_its_way(meter: Client):
    set_budget(meter.opened, daily_limit_usd=Decimal("0.00008"))
    # Each costs 0.000045 USD: the second one crosses the warning and the limit.
    assert [meter.send().status for _ in range(2)] == [200, 200]
    # Not of this workspace alone: other tests commit, too.
    notice_crossings(utc_now())
    crossings = LimitCrossing.objects.filter(limit__workspace=meter.opened.workspace)
    assert [crossing.claimed_at is not None for crossing in crossings] == [True, True]
    [exceeded] = alerts_of(meter.opened)
    assert exceeded.kind == "budget_exceeded"
    assert "Passed at the same time: 80.0%." in exceeded.text
    assert exceeded.title == "Daily budget exceeded: $0.000090 of $0.000080"
    assert exceeded.facts["spend"] == "0.00009"
    [message] = messages_of(meter.opened)
    assert told(message) == ["budget_exceeded"]
