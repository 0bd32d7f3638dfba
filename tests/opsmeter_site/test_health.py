import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import redis
from django.db import OperationalError, connections
from django.test import Client

from opsmeter_site import health
from opsmeter_site.lib import heartbeat
from tests.client import assert_refused


def ask(path, method="GET"):
    return Client().generic(method, path)


@pytest.fixture(autouse=True)
def _forget(settings):
    # A heartbeat of our own: other tests clear their keys while this one runs.
    settings.REDIS_KEY_PREFIX = f"opsmeter-health-{uuid4()}"
    health._unapplied_migrations.cache_clear()
    yield
    health._unapplied_migrations.cache_clear()


@pytest.fixture
def _own_keys():
    """Leaves nothing in Redis."""
    yield
    heartbeat.client().delete(heartbeat._key())


@pytest.fixture
def database_away(monkeypatch):
    def refuse(*args, **kwargs):
        raise OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "cursor", refuse)


@pytest.fixture
def redis_away(monkeypatch):
    unreachable = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=None)
    monkeypatch.setattr(health, "client", lambda: unreachable)
    monkeypatch.setattr(heartbeat, "client", lambda: unreachable)


@pytest.mark.usefixtures("database_away", "redis_away")
def test_healthz_asks_nobody():
    response = ask("/healthz")
    assert (response.status_code, json.loads(response.content)) == (200, {"status": "ok"})
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db
@pytest.mark.usefixtures("_own_keys")
def test_readyz_reports_every_part():
    seen = datetime.now(UTC) - timedelta(seconds=42)
    heartbeat.note_heartbeat(seen)
    response = ask("/readyz")
    body = json.loads(response.content)
    assert response.status_code == 200
    assert body["status"] == "ready"
    assert body["checks"]["database"] == {"ok": True}
    assert body["checks"]["migrations"] == {"ok": True, "unapplied": 0}
    assert body["checks"]["redis"] == {"ok": True}
    assert body["checks"]["scheduler"]["ok"] is True
    assert 42 <= body["checks"]["scheduler"]["ageSeconds"] <= 60


@pytest.mark.django_db
@pytest.mark.usefixtures("_own_keys")
def test_a_scheduler_that_stopped_is_reported_and_not_fatal():
    heartbeat.note_heartbeat(datetime.now(UTC) - timedelta(hours=1))
    response = ask("/readyz")
    assert response.status_code == 200
    assert json.loads(response.content)["checks"]["scheduler"]["ok"] is False


@pytest.mark.django_db
@pytest.mark.usefixtures("redis_away")
def test_redis_away_is_reported_and_not_fatal():
    response = ask("/readyz")
    checks = json.loads(response.content)["checks"]
    assert response.status_code == 200
    assert (checks["redis"]["ok"], checks["scheduler"]["ok"]) == (False, False)


@pytest.mark.usefixtures("database_away")
def test_a_database_that_is_away_means_not_ready():
    response = ask("/readyz")
    body = json.loads(response.content)
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert body["status"] == "unavailable"
    assert body["checks"]["database"]["ok"] is False
    assert body["checks"]["migrations"]["ok"] is False


@pytest.mark.django_db
def test_a_missing_migration_means_not_ready_until_it_is_applied(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(health.MigrationExecutor, "migration_plan", lambda *args: [("one", False), ("two", False)])
        response = ask("/readyz")
        assert response.status_code == 503
        assert json.loads(response.content)["checks"]["migrations"] == {"ok": False, "unapplied": 2}
    assert ask("/readyz").status_code == 200


@pytest.mark.django_db
def test_migrations_are_looked_up_once(monkeypatch, django_assert_max_num_queries):
    ask("/readyz")
    with django_assert_max_num_queries(1):
        ask("/readyz")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_probes_only_read(path, method):
    response = ask(path, method)
    assert_refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


def test_probes_are_not_redirected_to_https(settings):
    settings.SECURE_SSL_REDIRECT = True
    assert ask("/healthz").status_code == 200
