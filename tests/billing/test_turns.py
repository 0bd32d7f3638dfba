"""No person uses up the provider's calls of everybody else."""

from datetime import timedelta

import pytest
import redis

from billing import changes, turns
from billing.models import ChangeRequest, Checkout
from tests.billing.asked import asked_provider
from tests.billing.provider_facts import subscribe
from tests.factories import make_workspace

BACK = "https://opsmeter.example.com/w/acme/settings/billing/"


@pytest.fixture
def shop(committed, monkeypatch):
    monkeypatch.setattr(turns, "MOST_PER_MINUTE", 3)
    monkeypatch.setattr(turns.time, "time", lambda: 600.0)
    with asked_provider(monkeypatch) as asked:
        yield asked


def begin(opened):
    return changes.start_checkout(
        opened.workspace, plan_tier="pro", interval="month", acting_user=opened.owner, return_url=BACK
    )


def open_portal(opened):
    return changes.portal_links(opened.workspace, acting_user=opened.owner)


def test_whoever_asks_too_often_is_told_to_wait_and_nobody_else_is(shop):
    busy, other = make_workspace("free"), make_workspace("free")
    for opened in (busy, other):
        subscribe(opened.workspace)
    for _ in range(3):
        open_portal(busy)
    for ask in (open_portal, lambda opened: changes.request_cancel(opened.workspace, acting_user=opened.owner)):
        with pytest.raises(turns.TooOften) as refused:
            ask(busy)
        assert (refused.value.status, refused.value.reason) == (429, "rate_limited")
        assert refused.value.headers == {"Retry-After": "61"}
    assert len(shop.asked) == 3
    assert not ChangeRequest.objects.exists()
    open_portal(other)
    assert len(shop.asked) == 4


def test_the_next_minute_is_a_new_one(shop, monkeypatch):
    opened = make_workspace("free")
    subscribe(opened.workspace)
    for _ in range(3):
        open_portal(opened)
    monkeypatch.setattr(turns.time, "time", lambda: 660.0)
    open_portal(opened)


def test_without_redis_nobody_is_held_up(shop, settings, monkeypatch):
    def away():
        raise redis.ConnectionError("away")

    monkeypatch.setattr(turns, "client", away)
    opened = make_workspace("free")
    subscribe(opened.workspace)
    for _ in range(4):
        open_portal(opened)


def test_checkouts_that_nobody_pays_come_to_an_end(shop, monkeypatch):
    monkeypatch.setattr(turns, "MOST_UNPAID_CHECKOUTS", 2)
    opened, other = make_workspace("free"), make_workspace("free")
    first = begin(opened).checkout
    begin(opened)
    with pytest.raises(turns.TooOften) as refused:
        begin(opened)
    assert 3_500 < int(refused.value.headers["Retry-After"]) <= 3_600
    assert Checkout.objects.filter(workspace=opened.workspace).count() == len(shop.wishes) == 2
    begin(other)
    Checkout.objects.filter(pk=first.pk).update(created_at=first.created_at - timedelta(hours=1))
    monkeypatch.setattr(turns.time, "time", lambda: 660.0)
    begin(opened)
