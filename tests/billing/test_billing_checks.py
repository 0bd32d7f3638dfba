"""What is said at start-up, and what the provider says when it is asked."""

from io import StringIO

import pytest
from django.core.checks import Error, Tags, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.management import CommandError, call_command

from billing.checks import check_settings, check_variants
from billing.management.commands import check_billing
from billing.models import Status, Subscription
from billing.providers.base import ProviderUnavailable, VariantFacts
from billing.services import ensure_plans
from billing.variants import map_variant

SECRET = "s3cr3t-" + "x" * 33
KEY = "k3y-of-the-provider"


@pytest.fixture
def on(settings):
    """Settings that belong together."""
    settings.LEMONSQUEEZY_API_KEY = KEY
    settings.LEMONSQUEEZY_WEBHOOK_SECRET = SECRET
    settings.LEMONSQUEEZY_STORE_ID = "3"
    settings.LEMONSQUEEZY_TEST_MODE = False
    settings.LEMONSQUEEZY_API_BASE = "https://api.lemonsqueezy.com/v1"
    return settings


@pytest.fixture
def off(settings):
    settings.LEMONSQUEEZY_API_KEY = settings.LEMONSQUEEZY_WEBHOOK_SECRET = settings.LEMONSQUEEZY_STORE_ID = ""
    return settings


def said(messages=None):
    found = check_settings(None) if messages is None else messages
    assert not any(SECRET in str(each) or KEY in str(each) for each in found)
    return [each.id for each in found]


def asked():
    return said(check_variants(None, databases=["default"]))


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_settings_that_belong_together_are_fine(on):
    assert said() == []
    on.IS_PRODUCTION = True
    assert said() == []


def test_without_billing_there_is_nothing_to_say(off):
    assert said() == []


@pytest.mark.parametrize("name", ["LEMONSQUEEZY_WEBHOOK_SECRET", "LEMONSQUEEZY_STORE_ID"])
def test_settings_without_a_key_are_left_over(off, name):
    setattr(off, name, "123456")
    [message] = check_settings(None)
    assert isinstance(message, CheckWarning)
    assert message.msg.startswith(name)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LEMONSQUEEZY_WEBHOOK_SECRET", "", "billing.E001"),
        ("LEMONSQUEEZY_STORE_ID", "", "billing.E002"),
        ("LEMONSQUEEZY_WEBHOOK_SECRET", "short", "billing.E003"),
        ("LEMONSQUEEZY_WEBHOOK_SECRET", "x" * 41, "billing.E003"),
        ("LEMONSQUEEZY_STORE_ID", "acme", "billing.E004"),
        ("LEMONSQUEEZY_STORE_ID", "#3", "billing.E004"),
        ("LEMONSQUEEZY_API_KEY", "two parts", "billing.E005"),
        ("LEMONSQUEEZY_API_KEY", "line\n", "billing.E005"),
        ("LEMONSQUEEZY_API_KEY", "kéy", "billing.E005"),
        ("LEMONSQUEEZY_API_BASE", "http://api.lemonsqueezy.com/v1", "billing.E006"),
        ("LEMONSQUEEZY_API_BASE", "api.lemonsqueezy.com/v1", "billing.E006"),
        ("LEMONSQUEEZY_API_BASE", "", "billing.E006"),
        ("LEMONSQUEEZY_API_BASE", "ftp://127.0.0.1/v1", "billing.E006"),
        ("LEMONSQUEEZY_API_BASE", "https://[::1/v1", "billing.E006"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error(on, name, value, expected):
    setattr(on, name, value)
    [message] = check_settings(None)
    assert (type(message), message.id) == (Error, expected)
    assert message.hint


@pytest.mark.parametrize("secret", ["x" * 6, "x" * 40])
def test_the_shortest_and_the_longest_secret_that_the_provider_takes(on, secret):
    on.LEMONSQUEEZY_WEBHOOK_SECRET = secret
    assert said() == []


@pytest.mark.parametrize("base", ["http://127.0.0.1:8020/v1", "http://localhost:8020/v1", "http://[::1]:8020/v1"])
def test_the_local_double_is_for_development_only(on, base):
    on.LEMONSQUEEZY_API_BASE, on.IS_PRODUCTION = base, False
    assert said() == []
    on.IS_PRODUCTION = True
    assert said() == ["billing.E006"]


def test_test_mode_in_production_is_worth_a_warning(on):
    on.LEMONSQUEEZY_TEST_MODE = True
    assert said() == []
    on.IS_PRODUCTION = True
    assert said() == ["billing.W002"]


def test_the_settings_are_checked_at_start_up(on):
    on.LEMONSQUEEZY_STORE_ID = ""
    assert "billing.E002" in {each.id for each in run_checks()}


# --- Rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_something_must_be_on_offer(on):
    ensure_plans()
    assert asked() == ["billing.W003"]
    map_variant(plan_tier="pro", interval="month", variant_id="101", is_offered=False)
    assert asked() == ["billing.W003"]
    map_variant(plan_tier="pro", interval="month", variant_id="101")
    assert asked() == []


@pytest.mark.django_db
def test_what_people_pay_for_must_mean_a_plan(on):
    ensure_plans()
    map_variant(plan_tier="pro", interval="month", variant_id="101")
    for number in (*range(1_000, 1_012), 101):
        paid(str(number))
    paid("")
    [message] = check_variants(None, databases=["default"])
    assert message.id == "billing.W004"
    assert "1000, 1001" in message.msg
    assert message.msg.endswith("1009, ….")


@pytest.mark.django_db
def test_rows_are_checked_with_the_database_only(on):
    assert check_variants(None) == []
    assert check_variants(None, databases=["replica"]) == []
    assert "billing.W003" in {each.id for each in run_checks(tags=[Tags.database], databases=["default"])}
    assert "billing.W003" not in {each.id for each in run_checks()}


@pytest.mark.django_db
def test_without_billing_rows_do_not_matter(off):
    assert asked() == []


@pytest.mark.django_db
def test_before_the_first_migration_there_is_nothing_to_check(on, monkeypatch):
    monkeypatch.setattr("django.db.backends.base.introspection.BaseDatabaseIntrospection.table_names", lambda _: [])
    assert asked() == []


def paid(variant_id):
    Subscription.objects.create(
        provider="lemonsqueezy",
        provider_subscription_id=f"9{variant_id}",
        variant_id=variant_id,
        status=Status.ACTIVE,
    )


# --- Asking the provider ----------------------------------------------------------------------------------------------


class Shop:
    """A provider that sells what it is told to."""

    def __init__(self, *sold):
        self.sold = sold

    def fetch_variants(self):
        if isinstance(self.sold[0], Exception):
            raise self.sold[0]
        return self.sold


def sold(variant_id, interval="month", *, is_test=False):
    return VariantFacts(
        variant_id=variant_id, store_id="3", name=f"Opsmeter {variant_id}", interval=interval, is_test=is_test
    )


def check(monkeypatch, *on_sale):
    """What the command prints, and how it ends."""
    monkeypatch.setattr(check_billing, "provider", lambda: Shop(*on_sale))
    out = StringIO()
    try:
        call_command("check_billing", stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), None


def test_without_billing_there_is_nothing_to_ask(off, monkeypatch):
    printed, failure = check(monkeypatch, AssertionError("It was asked."))
    assert printed.startswith("There is no billing here")
    assert failure is None


@pytest.mark.django_db
def test_everything_in_place(on, monkeypatch):
    ensure_plans()
    map_variant(plan_tier="pro", interval="month", variant_id="101")
    map_variant(plan_tier="pro", interval="year", variant_id="102", is_offered=False)
    printed, failure = check(monkeypatch, sold("101"), sold("103", "year"))
    assert failure is None
    assert printed.splitlines() == [
        "The key is good. Store 3 sells 2 by subscription.",
        "Variant 101 (Pro, month) is sold as “Opsmeter 101”.",
        "Variant 102 (Pro, year) is not sold any more, and not on offer here.",
        "Variant 103 (“Opsmeter 103”, year) is sold, but means no plan.",
        "Everything is in place.",
    ]


@pytest.mark.django_db
def test_every_problem_is_named(on, monkeypatch):
    ensure_plans()
    on.LEMONSQUEEZY_WEBHOOK_SECRET = ""
    map_variant(plan_tier="pro", interval="month", variant_id="101")
    map_variant(plan_tier="team", interval="month", variant_id="102")
    paid("777")
    printed, failure = check(monkeypatch, sold("101", "year", is_test=True))
    assert failure == "Problems found: 5."
    assert [line.removeprefix("PROBLEM  ") for line in printed.splitlines() if line.startswith("PROBLEM")] == [
        "LEMONSQUEEZY_WEBHOOK_SECRET is empty, so every message of the provider is refused.",
        "Variant 101 (Pro, month) renews by the year at the provider.",
        "Variant 101 (Pro, month) belongs to the test mode, but LEMONSQUEEZY_TEST_MODE is off.",
        "Variant 102 (Team, month) is on offer here, but store 3 does not sell it by subscription.",
        "Subscriptions are on variant 777, which means no plan here.",
    ]


@pytest.mark.django_db
def test_nothing_on_offer_is_a_problem(on, monkeypatch):
    printed, failure = check(monkeypatch, sold("101"))
    assert failure == "Problems found: 1."
    assert "No plan is on offer" in printed


@pytest.mark.django_db
def test_a_provider_that_cannot_be_asked_is_a_problem(on, monkeypatch):
    printed, failure = check(monkeypatch, ProviderUnavailable("The payment provider refuses the key."))
    assert failure == "Problems found: 1."
    assert "The payment provider refuses the key." in printed
    assert KEY not in printed
