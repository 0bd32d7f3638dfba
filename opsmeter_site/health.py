"""Probes. `/healthz`: this process answers. `/readyz`: it can do its work, so send it traffic."""

from functools import cache
from typing import Any

import redis
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from opsmeter_site.api_errors import RETRY_SECONDS_WHILE_UNAVAILABLE, error_response
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.heartbeat import STALE_AFTER, last_heartbeat
from opsmeter_site.lib.redis import client


@csrf_exempt
@login_not_required
@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while the process answers. Asks nobody else: restarting it would not bring the database back."""
    return _refuse_method(request) or JsonResponse({"status": "ok"})


@csrf_exempt
@login_not_required
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database answers and every migration is applied, otherwise 503.

    Redis and the scheduler are reported and never fatal: ingest works without either.
    """
    if refusal := _refuse_method(request):
        return refusal
    database = _check_database()
    checks = {
        "database": database,
        "migrations": check_migrations() if database["ok"] else {"ok": False, "detail": "not known"},
        "redis": _check_redis(),
        "scheduler": _check_scheduler(),
    }
    if database["ok"] and checks["migrations"]["ok"]:
        return JsonResponse({"status": "ready", "checks": checks})
    headers = {"Retry-After": str(RETRY_SECONDS_WHILE_UNAVAILABLE)}
    return JsonResponse({"status": "unavailable", "checks": checks}, status=503, headers=headers)


def _refuse_method(request: HttpRequest) -> JsonResponse | None:
    if request.method in {"GET", "HEAD"}:
        return None
    return error_response(405, "method_not_allowed", "Send GET or HEAD.", headers={"Allow": "GET, HEAD"})


def _check_database() -> dict[str, Any]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError) as error:
        return {"ok": False, "detail": type(error).__name__}
    return {"ok": True}


def check_migrations() -> dict[str, Any]:
    """`ok`, and how many migrations are `unapplied`; or, as `detail`, why that is not known."""
    try:
        missing = _unapplied_migrations()
    except (DatabaseError, InterfaceError) as error:
        return {"ok": False, "detail": type(error).__name__}
    except _MigrationsMissingError as error:
        return {"ok": False, "unapplied": error.number}
    return {"ok": True, "unapplied": missing}


class _MigrationsMissingError(Exception):
    """Raised rather than returned, so that only the good answer is remembered."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@cache
def _unapplied_migrations() -> int:
    """0, remembered for the life of the process: its code cannot ask for more migrations later."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        raise _MigrationsMissingError(len(plan))
    return 0


def _check_redis() -> dict[str, Any]:
    try:
        client().ping()
    except redis.RedisError as error:
        return {"ok": False, "detail": type(error).__name__}
    return {"ok": True}


def _check_scheduler() -> dict[str, Any]:
    try:
        seen = last_heartbeat()
    except redis.RedisError as error:
        return {"ok": False, "detail": type(error).__name__}
    if seen is None:
        return {"ok": False, "ageSeconds": None}
    age = utc_now() - seen
    return {"ok": age <= STALE_AFTER, "ageSeconds": int(age.total_seconds())}
