"""Fixtures for tests that need the ledger as it really is: committed rows, own connections, several processes."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import TransactionTestCase
from django.test.utils import setup_databases, teardown_databases
from hypothesis import settings as hypothesis_settings
from pytest_django.plugin import DjangoDbBlocker

from billing.services import ensure_plans
from ingest import pricing
from ingest.gateway.app import Gateway
from ingest.models import CatalogVersion, ModelPrice
from ingest.models.prices import SINCE_EVER
from opsmeter_site.lib import redis
from opsmeter_site.lib.database import conninfo
from tests.emptying import empty_tables
from tests.factories import make_workspace
from tests.scheduling import BrowserTogether
from tests.servers import Server, serve
from tests.wire import InProcess, Reply

# USD per 1M tokens of the one model that every committed test knows; no provider of the real catalogue has this name.
PROVIDER, MODEL = "testhost", "model-one"
INPUT_USD, OUTPUT_USD = Decimal("0.15"), Decimal("0.60")

# The same examples each time: a suite tells whether a change is good. New ones are looked for on purpose, see
# CONTRIBUTING.md.
hypothesis_settings.register_profile("suite", derandomize=True)
hypothesis_settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BrowserTogether:
    """How tests are shared out among processes."""
    return BrowserTogether(config, log)


def pytest_collection_finish() -> None:
    """What is there by now stays: the collector need not walk over hundreds of thousands of objects again and again."""
    gc.freeze()
    # Seldom, too: a suite is short, and memory is there.
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
    django_db_keepdb: bool,
    django_db_createdb: bool,
    django_db_modify_db_settings: None,
) -> Iterator[None]:
    """The tests' database, always. The plugin's own fixture makes it only for tests that carry its marker."""
    with django_db_blocker.unblock():
        keep = django_db_keepdb and not django_db_createdb
        databases = setup_databases(verbosity=0, interactive=False, keepdb=keep, serialized_aliases=[])
    # Instead of Django's `flush`, after each transactional test.
    TransactionTestCase._fixture_teardown = _begin_anew
    yield
    if not django_db_keepdb:
        with django_db_blocker.unblock():
            teardown_databases(databases, verbosity=0)


def _begin_anew(*_: Any) -> None:
    empty_tables()
    # Here and not in everything that opens a workspace: transactional tests are few.
    ensure_plans()


@pytest.fixture(autouse=True)
def _fresh_redis(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test starts with the rate windows and epochs of nobody."""
    yield
    if "_redis_used" in request.fixturenames:
        forget_keys()


def forget_keys() -> None:
    """Remove this process's keys. `cache.clear()` would empty all of Redis, under the other processes' feet."""
    keys = list(redis.client().scan_iter(f"{settings.REDIS_KEY_PREFIX}:*"))
    if keys:
        redis.client().delete(*keys)


@pytest.fixture
def _redis_used() -> None:
    """Marks a test as one that leaves keys in Redis."""


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker, _redis_used: None) -> Iterator[None]:
    """Real commits without a clean-up: each test opens workspaces of its own, and nothing is shared between workspaces.

    Emptying every table after each test, as a transactional test does, would take longer than most of these tests.
    """
    with django_db_blocker.unblock():
        _ensure_price()
        pricing.forget_book()
        yield
    pricing.forget_book()


def _ensure_price() -> None:
    _, created = ModelPrice.objects.get_or_create(
        provider=PROVIDER,
        model=MODEL,
        defaults={
            "effective_from": SINCE_EVER,
            "input_usd_per_1m": INPUT_USD,
            "output_usd_per_1m": OUTPUT_USD,
            "cached_input_usd_per_1m": INPUT_USD / 2,
            "source": "operator",
            "checked_on": date(2026, 1, 1),
        },
    )
    if created:
        version, _ = CatalogVersion.objects.get_or_create(id=CatalogVersion.THE_ROW)
        version.version += 1
        version.save()


@dataclass
class Client:
    """A workspace and the way its programs reach the product."""

    app: InProcess
    opened: Any

    @property
    def workspace_id(self) -> Any:
        return self.opened.workspace.id

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        """POST with the workspace's API key."""
        return self.app.request("POST", path, body, {"X-API-Key": self.opened.api_key_plain, **headers})

    def send(self, **changes: Any) -> Reply:
        """POST one event; `changes` are fields of the payload."""
        return self.post("/v1/ingest/llm-request", payload(**changes))

    def send_batch(self, events: list[Any]) -> Reply:
        """POST a batch."""
        return self.post("/v1/ingest/llm-requests", {"events": events})


def payload(**changes: Any) -> dict[str, Any]:
    """A small valid event that costs 0.000045 USD; None removes a field."""
    fields = {
        "externalRequestId": f"id-{next(_numbers)}",
        "provider": PROVIDER,
        "model": MODEL,
        "inputTokens": 100,
        "outputTokens": 50,
        "status": "success",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def _count() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _count()


@pytest.fixture
def app(committed: None) -> Iterator[InProcess]:
    """The product as the server runs it: the gateway in front of Django, in this process."""
    gateway = Gateway(conninfo(), get_wsgi_application())
    yield InProcess(gateway)
    gateway.close()


@pytest.fixture(scope="session")
def server(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """The product's server with two processes, shared by the tests that only send to it."""
    with django_db_blocker.unblock(), serve(workers=2) as running:
        yield running


@pytest.fixture
def client_of(app: InProcess) -> Any:
    """Makes a client with a workspace of its own: `client_of("pro", monthly_requests=10)`."""

    def make(plan: str = "pro", **wanted: Any) -> Client:
        return Client(app, make_workspace(plan, **wanted))

    return make


@pytest.fixture
def meter(client_of: Any) -> Client:
    """A client on the Pro plan."""
    return client_of()
