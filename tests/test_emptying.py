"""Tests that commit leave nothing to the tests after them, and take nothing from the tests beside them."""

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from opsmeter_site.lib import redis
from tests.conftest import forget_keys
from tests.emptying import _tables, empty_tables
from tests.factories import make_cast


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("large", [0, 10**9], ids=["truncated", "deleted"])
def test_every_table_is_empty_and_what_migrations_make_is_there(monkeypatch, large):
    monkeypatch.setattr("tests.emptying._LARGE_BYTES", large)
    make_cast()
    made = ContentType.objects.count(), Permission.objects.count()
    empty_tables()
    with connection.cursor() as cursor:
        for table in _tables():
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            assert cursor.fetchone() == (0,), table
    assert (ContentType.objects.count(), Permission.objects.count()) == made


@pytest.mark.usefixtures("_redis_used")
def test_other_processes_keep_their_keys(settings):
    redis.client().set("opsmeter-test-elsewhere:key", 1, ex=60)
    redis.client().set(f"{settings.REDIS_KEY_PREFIX}:key", 1)
    forget_keys()
    assert not redis.client().exists(f"{settings.REDIS_KEY_PREFIX}:key")
    assert redis.client().delete("opsmeter-test-elsewhere:key") == 1
