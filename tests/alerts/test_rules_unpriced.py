from datetime import UTC, datetime, timedelta

import pytest

from alerts.noticing import raise_alerts
from alerts.rules.unpriced import find_late, find_recent
from ingest.models import Rollup
from tests.alerts.rolled import roll
from tests.factories import OperatorFactory, make_workspace
from tests.prices import add, usd

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def unpriced(workspace, model="gpt-99", moment=NOW, **facts):
    roll(workspace, moment, model=model, is_priced=False, **facts)


def found(workspace, now=NOW):
    return find_recent([workspace.pk], now)


def told(workspace, now=NOW):
    return [finding.facts["told"] for finding in found(workspace, now)]


def test_the_first_use_says_what_and_what_to_do(workspace):
    unpriced(workspace, requests=312)
    (finding,) = found(workspace)
    assert finding.title == "openai/gpt-99 has no known price"
    assert finding.text == (
        "Requests without a known price since 10 Nov 2026, 12:00 UTC, by model, used for the first time: openai/gpt-99 "
        "(312 requests). Their cost is not known, so totals and budgets leave it out. Ask whoever runs Opsmeter for "
        "you to add a price, or send the name that the catalogue knows: see Prices, Without a price. Each model is "
        "told once."
    )
    assert finding.severity == "warning"
    assert finding.facts["drill"] == {"provider": "openai", "model": "gpt-99"}


def test_who_may_add_prices_is_told_so():
    workspace = make_workspace("enterprise").workspace
    unpriced(workspace)
    assert "Add a price of your own, or send" in found(workspace)[0].text


def test_what_has_a_price_is_no_news(workspace):
    roll(workspace, NOW, 1)
    assert found(workspace) == []


def test_what_has_got_a_price_since_needs_nothing(workspace):
    unpriced(workspace, "our-model", provider="our-host")
    add(OperatorFactory(), provider="our-host", model="our-model", unit_prices=usd("1", "2"))
    assert found(workspace) == []


def test_several_names_are_one_finding(workspace):
    for number in range(25):
        unpriced(workspace, f"model-{number:02}", requests=100 - number)
    (finding,) = found(workspace)
    assert finding.title == "25 models have no known price"
    assert "openai/model-00 (100 requests), openai/model-01" in finding.text
    assert "openai/model-19 (81 requests) and 5 more." in finding.text
    assert len(finding.facts["told"]) == 25


def test_one_name_written_in_several_ways_is_one(workspace):
    unpriced(workspace, "GPT-99", provider="OpenAI")
    unpriced(workspace, "gpt-99", provider="open-ai")
    assert told(workspace) == [["openai/gpt-99"]]


def test_demo_data_is_no_news(workspace):
    unpriced(workspace, data_mode="demo")
    assert found(workspace) == []


def test_each_name_is_told_once_for_ever(workspace):
    unpriced(workspace)
    (alert,) = raise_alerts(found(workspace), NOW)
    alert.state, alert.resolved_at = "resolved", NOW
    alert.save()
    Rollup.objects.filter(workspace_id=workspace.pk).delete()
    later = NOW + 200 * DAY
    unpriced(workspace, moment=later)
    unpriced(workspace, "gpt-100", moment=later)
    assert told(workspace, later) == [["openai/gpt-100"]]


def test_news_waits_for_an_hour_after_an_alert(workspace):
    unpriced(workspace)
    raise_alerts(found(workspace), NOW)
    unpriced(workspace, "gpt-100")
    assert found(workspace, NOW + HOUR - timedelta(seconds=1)) == []
    assert told(workspace, NOW + HOUR) == [["openai/gpt-100"]]


@pytest.mark.parametrize(("days", "is_told"), [(34, True), (35, True), (36, False)])
def test_events_that_are_weeks_late_are_found_too(workspace, days, is_told):
    unpriced(workspace, moment=NOW - days * DAY)
    assert found(workspace) == []
    assert bool(find_late([workspace.pk], NOW)) is is_told


def test_another_workspace_is_told_by_itself(workspace):
    other = make_workspace("free").workspace
    unpriced(workspace)
    raise_alerts(found(workspace), NOW)
    unpriced(other)
    assert [finding.workspace_id for finding in find_recent([workspace.pk, other.pk], NOW)] == [other.pk]


def test_names_without_end_come_to_an_end(workspace, monkeypatch):
    monkeypatch.setattr("alerts.rules.unpriced._MOST_EVER", 3)
    for number in range(2):
        unpriced(workspace, f"model-{number}", requests=9)
    raise_alerts(found(workspace), NOW)
    for number in range(2, 6):
        unpriced(workspace, f"model-{number}", requests=99)
    (last,) = found(workspace, NOW + HOUR)
    assert last.facts["told"] == ["openai/model-2"]
    assert last.text.endswith("Each model is told once, and no more than 3 ever: these were the last.")
    raise_alerts([last], NOW + HOUR)
    assert found(workspace, NOW + 2 * HOUR) == []
