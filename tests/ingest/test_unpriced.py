"""The inbox of names without a price: what is in it, why, and what each might mean."""

from datetime import timedelta
from decimal import Decimal

import pytest

from ingest.name_suggestions import Suggester, simpler_names
from ingest.price_selectors import newest_book
from ingest.unpriced import Reason, inbox, with_suggestions
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from tests.ledger import NOON, make_event, make_events, make_workspace
from tests.prices import add, bring_in, says, usd

MODELS = {
    "gpt-4o": ("gpt-4o-2024-08-06",),
    "gpt-4o-mini": (),
    "gpt-4.1": (),
    "claude-3-5-sonnet": ("claude-3-5-sonnet-20241022",),
    "claude-sonnet-4": (),
    "claude-sonnet-4-5": (),
    "claude-opus-4-1": (),
    "gemini-2.5-pro": (),
    "llama-3-70b-instruct": (),
    "anthropic.claude-3-haiku-20240307-v1:0": (),
}


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        # what hosts and gateways add
        ("eu.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-2.5-pro-preview-05-06", "gemini-2.5-pro"),
        ("openai/gpt-4o:free", "gpt-4o"),
        ("gpt-4o-mini-0718", "gpt-4o-mini"),
        ("claude-sonnet-4@001", "claude-sonnet-4"),
        ("gpt-4o-latest", "gpt-4o"),
        # the same words and numbers, written differently
        ("claude-4-5-sonnet", "claude-sonnet-4-5"),
        ("gpt4o_mini", "gpt-4o-mini"),
        ("llama3-70b-instruct", "llama-3-70b-instruct"),
        ("claude-3-haiku", "anthropic.claude-3-haiku-20240307-v1:0"),
        # most of the words, and the same numbers
        ("gpt-4o-mini-turbo", "gpt-4o-mini"),
        ("llama-3-70b", "llama-3-70b-instruct"),
        # another number is another model
        ("gpt-5o", None),
        ("claude-opus-4-2", None),
        ("gpt-4.2", None),
        ("our-own-model", None),
        ("", None),
        ("💥", None),
    ],
)
def test_a_suggestion_is_a_model_of_the_same_numbers(name, suggestion):
    assert Suggester(MODELS).suggest(name) == suggestion


def test_a_suggestion_does_not_depend_on_the_order_of_the_catalogue():
    names = ["gpt-4o-audio", "claude-5-sonnet-4", "sonnet-4-claude"]
    backwards = dict(reversed(MODELS.items()))
    assert [Suggester(MODELS).suggest(name) for name in names] == [Suggester(backwards).suggest(name) for name in names]


def test_taking_additions_away_ends():
    names = list(simpler_names("/".join(["us.x.y-v1:0"] * 60) + "-001" * 60 + ":latest" * 20))
    assert len(names) == len(set(names)) <= 100


# --- The inbox ------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("empty_catalogue")


def read(workspace, start=None):
    book, _ = newest_book()
    return inbox(book, workspace, start, utc_now())


def unpriced(workspace, **fields):
    make_event(workspace, **{"model": "gpt-x", "cost_usd": None, **fields})


def test_spellings_of_one_name_are_one_entry():
    bring_in(says(usd("1")))
    workspace = make_workspace()
    unpriced(workspace, provider="openai", model="GPT-X", endpoint_tag="rare")
    unpriced(workspace, provider="open-ai", model=" gpt-x ", endpoint_tag="often", occurred_at=NOON + timedelta(days=1))
    unpriced(workspace, provider="openai", model="gpt-x", endpoint_tag="often", occurred_at=NOON - timedelta(days=1))
    make_event(workspace, provider="openai", model="gpt")
    [name] = read(workspace).waiting
    assert (name.provider, name.model, name.requests, name.tokens) == ("openai", "gpt-x", 3, 450)
    assert set(name.sent) == {("openai", "gpt-x"), ("openai", "GPT-X"), ("open-ai", " gpt-x ")}
    assert name.share == Decimal(3) / 4
    assert (name.first_seen, name.last_seen) == (NOON - timedelta(days=1), NOON + timedelta(days=1))
    assert sorted(name.endpoints) == ["often", "rare"]
    assert name.reason == Reason.UNKNOWN_MODEL


def test_endpoints_come_by_their_requests_and_names_by_their_tokens():
    workspace = make_workspace()
    unpriced(workspace, endpoint_tag="rare")
    make_events(workspace, 3, model="gpt-x", cost_usd=None, endpoint_tag="often")
    unpriced(workspace, model="gpt-heavy", uncached_input_tokens=10_000)
    heavy, light = read(workspace).waiting
    assert (heavy.model, light.model, light.endpoints) == ("gpt-heavy", "gpt-x", ("often", "rare"))


def test_only_this_workspace_and_this_time():
    workspace, other = make_workspace(), make_workspace()
    unpriced(other, model="theirs")
    unpriced(workspace, model="old", occurred_at=NOON - timedelta(days=40))
    unpriced(workspace, model="new")
    assert [name.model for name in read(workspace, NOON - timedelta(days=1)).waiting] == ["new"]
    assert {name.model for name in read(workspace).waiting} == {"new", "old"}


def test_nothing_sent_is_nothing_unpriced():
    found = read(make_workspace())
    assert (found.waiting, found.priced_since, found.requests, found.share) == ((), (), 0, None)


def test_why_each_has_no_price(operator):
    bring_in(says(usd("1")))
    workspace = make_workspace()
    unpriced(workspace, provider="somewhere", model="gpt")
    unpriced(workspace, provider="azure", model="gpt")
    unpriced(workspace, model="dated")
    unpriced(workspace, model="since")
    add(operator, workspace=workspace, model="dated", effective_from=NOON + timedelta(hours=1))
    add(operator, model="since")
    found = read(workspace)
    assert {(name.provider, name.model): name.reason for name in found.waiting} == {
        ("somewhere", "gpt"): Reason.UNKNOWN_PROVIDER,
        ("azure", "gpt"): Reason.UNKNOWN_PROVIDER,
        ("openai", "dated"): Reason.NO_PRICE_THEN,
    }
    [since] = found.priced_since
    assert (since.model, since.reason) == ("since", Reason.PRICED_SINCE)
    assert found.requests == 4


def test_a_price_that_began_within_the_last_quarter_hour_counts(operator):
    workspace = make_workspace()
    earlier = quarter_hour_of(utc_now()) - QUARTER_HOUR
    unpriced(workspace, occurred_at=earlier + timedelta(minutes=5))
    add(operator, workspace=workspace, model="gpt-x", effective_from=earlier + timedelta(minutes=6))
    assert [name.reason for name in read(workspace).priced_since] == [Reason.PRICED_SINCE]


def test_suggestions_stay_with_the_host_and_are_not_applied(operator):
    bring_in(says(usd("1"), model="gpt-4o"))
    add(operator, provider="azure", model="phi")
    workspace = make_workspace()
    unpriced(workspace, provider="openai", model="gpt-4o-latest")
    unpriced(workspace, provider="azure", model="gpt-4o-latest")
    unpriced(workspace, provider="nowhere", model="gpt-4o-latest")
    book, _ = newest_book()
    shown = with_suggestions(book, read(workspace).waiting, utc_now())
    assert {name.provider: name.suggestion for name in shown} == {"openai": "gpt-4o", "azure": None, "nowhere": None}
    assert {name.reason for name in shown} == {Reason.UNKNOWN_MODEL, Reason.UNKNOWN_PROVIDER}


def test_two_queries_however_many_names(django_assert_num_queries):
    workspace = make_workspace()
    for number in range(5):
        unpriced(workspace, model=f"model-{number}")
    book, _ = newest_book()
    with django_assert_num_queries(2):
        assert len(inbox(book, workspace, None, utc_now()).waiting) == 5
