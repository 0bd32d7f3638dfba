"""Emptying the tables after a test with real transactions: what Django's `flush` does, thirty times faster."""

from contextlib import closing
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Model

# `flush` empties these, too, and makes the same rows again.
_KEPT: tuple[type[Model], ...] = (ContentType, Permission)
# DELETE leaves dead rows behind, which later tests would have to read past; TRUNCATE takes a table's file away.
_LARGE_BYTES = 4_000_000


def empty_tables(*_: Any) -> None:
    """Remove every row. `flush` truncates all tables, also those that hold nothing, and that takes 100 ms of work."""
    with closing(connection.cursor()) as cursor:
        tables = _tables()
        cursor.execute(
            "SELECT max(pg_table_size(quote_ident(name)::regclass)), current_setting('is_superuser')::boolean "
            "FROM unnest(%s::text[]) AS name",
            [tables],
        )
        largest, is_superuser = cursor.fetchone()
        if largest > _LARGE_BYTES or not is_superuser:
            call_command("flush", verbosity=0, interactive=False, reset_sequences=False, allow_cascade=False)
            return
        names = [connection.ops.quote_name(table) for table in tables]
        # No name of ours has an apostrophe in it.
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in names))
        full = [name for (name,) in cursor.fetchall()]
        with transaction.atomic():
            # Without the checks of foreign keys: in the end nothing is left that could refer to anything.
            cursor.execute("SET LOCAL session_replication_role = replica")
            for name in full:
                cursor.execute(f"DELETE FROM {name}")


def _tables() -> list[str]:
    models = [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    return sorted({model._meta.db_table for model in models if not model._meta.proxy and model not in _KEPT})
