"""A workspace with a believable past for benchmarks of pages: `python -m bench.pages_data SLUG --events 1000000`.

Rows are made inside the database, a day at a time in order of time, as ingest would have left them: skewed users,
tenants, models and hours, real prices, a few late rows, errors and unpriced calls. The same seed gives the same rows.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from time import perf_counter
from typing import Any
from uuid import UUID

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmeter_site.settings")
    django.setup()

from django.db import connection, transaction

from ingest import meters
from ingest.management.workspace_argument import find_workspace
from ingest.models import ServiceTier
from ingest.pricing import current_book
from ingest.rollups import rebuild_rollups
from ingest.services import lock_ledger
from opsmeter_site.lib.clock import utc_now

DAYS = 90
USERS, TENANTS, ENDPOINTS, VERSIONS, FEATURES = 2_000, 60, 12, 3, 8
_QUOTED_TOKENS = 1_000

# Provider, model, and what a typical call is like: input tokens, output tokens, milliseconds.
_MODELS = (
    ("openai", "gpt-4o-mini", 900, 180, 900),
    ("openai", "gpt-4o", 1_600, 350, 2_100),
    ("anthropic", "claude-sonnet-4-5", 2_600, 500, 3_800),
    ("anthropic", "claude-haiku-4-5", 1_200, 220, 1_200),
    ("google", "gemini-2.5-flash", 1_500, 260, 1_000),
    ("google", "gemini-2.5-pro", 3_800, 700, 5_600),
)
# Nobody has a price for this one.
_UNPRICED = ("openai", "ft:gpt-4o-mini:acme:bench", 700, 160, 800)
# Share of a day's traffic by UTC hour.
_HOURS = (1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 12, 11, 14, 16, 16, 14, 12, 10, 8, 6, 4, 2, 1)

_INSERT_DAY = """
WITH model AS (
    SELECT * FROM unnest(
        %(numbers)s::int[], %(providers)s::text[], %(models)s::text[], %(price_ids)s::bigint[],
        %(input_usd)s::numeric[], %(cached_usd)s::numeric[], %(output_usd)s::numeric[],
        %(inputs)s::int[], %(outputs)s::int[], %(latencies)s::int[]
    ) AS model (model_number, provider, name, price_id, input_usd, cached_usd, output_usd, input, output, latency)
), dice AS MATERIALIZED (
    SELECT number, random() AS at, random() AS minute, floor(%(users)s * random() ^ 2.5)::int AS person,
        floor(%(endpoints)s * random() ^ 1.8)::int AS endpoint, random() AS model_dice, random() AS version_dice,
        random() AS environment_dice, random() AS mode_dice, random() AS error_dice, random() AS late_dice,
        exp(random_normal(0, 0.5)) AS input_size, exp(random_normal(0, 0.6)) AS output_size, random() AS cached,
        exp(random_normal(0, 0.55)) AS pace
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS series (number)
), placed AS MATERIALIZED (
    SELECT dice.*, %(day)s::timestamptz + (width_bucket(at, %(hour_bounds)s::float8[]) - 1 + minute) * INTERVAL '1 hour'
            AS occurred_at,
        CASE WHEN model_dice < 0.02 THEN %(unpriced)s ELSE (endpoint + (model_dice > 0.8)::int) %% %(unpriced)s END
            AS model_number,
        least(%(versions)s, 1 + floor(version_dice * 1.3 + %(progress)s * (%(versions)s - 0.3)))::int AS version
    FROM dice
), called AS (
    SELECT placed.*, model.provider, model.name, model.price_id, model.input_usd, model.cached_usd, model.output_usd,
        model.latency, error_dice < 0.015 AS has_failed,
        greatest(1, (model.input * input_size))::int AS input_tokens,
        CASE WHEN error_dice < 0.015 THEN 0 ELSE greatest(1, (model.output * output_size))::int END AS output_tokens,
        CASE WHEN endpoint %% 3 = 0 THEN (model.input * input_size * 0.6 * cached)::int ELSE 0 END AS cached_tokens
    FROM placed JOIN model USING (model_number)
    WHERE occurred_at <= %(now)s
)
INSERT INTO ingest_event (
    workspace_id, occurred_at, received_at, price_id, fingerprint, total_tokens, uncached_input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, latency_ms, cost_usd, external_request_id,
    provider, model, endpoint_tag, prompt_version, environment, data_mode, service_tier, status, error_code, user_id,
    tenant_id, feature_tag
)
SELECT %(workspace)s, occurred_at,
    least(%(now)s, occurred_at + CASE WHEN late_dice < 0.005 THEN INTERVAL '3 hours' ELSE INTERVAL '1 second' END),
    price_id, hashint8extended(number, 0), input_tokens + output_tokens, input_tokens - cached_tokens,
    cached_tokens, 0, output_tokens, 0, (latency * pace)::int,
    input_usd * (input_tokens - cached_tokens) + cached_usd * cached_tokens + output_usd * output_tokens,
    'bench-' || number, provider, name, 'endpoint.' || endpoint, 'v' || version,
    CASE WHEN environment_dice < 0.90 THEN 'prod' WHEN environment_dice < 0.96 THEN 'staging' ELSE 'dev' END,
    CASE WHEN mode_dice < 0.97 THEN 'real' WHEN mode_dice < 0.99 THEN 'test' ELSE 'demo' END,
    'standard', CASE WHEN has_failed THEN 'error' ELSE 'success' END, CASE WHEN has_failed THEN 'timeout' END,
    'user-' || person, 'tenant-' || person %% %(tenants)s, 'feature-' || endpoint %% %(features)s
FROM called
ORDER BY occurred_at
"""


def fill(workspace_id: UUID, events: int, *, now: datetime, days: int = DAYS) -> int:
    """Store about `events` rows over the `days` before `now` with their roll-ups and meters; answers how many.

    The workspace must be empty. Statistics are fresh afterwards, as autovacuum leaves them.
    """
    parameters = _model_columns(workspace_id, now) | {
        "workspace": workspace_id,
        "now": now,
        "hour_bounds": _hour_bounds(),
        "users": USERS,
        "tenants": TENANTS,
        "endpoints": ENDPOINTS,
        "versions": VERSIONS,
        "features": FEATURES,
    }
    stored = 0
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for number in range(days):
        day = today - timedelta(days=days - 1 - number)
        share = {
            "day": day,
            "progress": number / days,
            "first": events * number // days,
            "last": events * (number + 1) // days - 1,
        }
        with transaction.atomic():
            policy = lock_ledger(workspace_id)
            with connection.cursor() as cursor:
                cursor.execute("SELECT setseed(%s)", [number / days])
                cursor.execute("SET LOCAL jit = off")
                cursor.execute("SET LOCAL work_mem = '256MB'")
                cursor.execute(_INSERT_DAY, parameters | share)
                stored += cursor.rowcount
            rebuild_rollups(workspace_id, day, day + timedelta(days=1))
    with transaction.atomic():
        meters.rebuild(workspace_id, policy)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE ingest_event, ingest_rollup, ingest_meter")
    return stored


def _model_columns(workspace_id: UUID, now: datetime) -> dict[str, Any]:
    """The models as one array a column, with what a token of each costs now; the unpriced one comes last."""
    rows = [(*_unit_prices(workspace_id, now, provider, model), size) for provider, model, *size in _MODELS]
    rows.append((None, None, None, None, list(_UNPRICED[2:])))
    names = [*_MODELS, _UNPRICED]
    return {
        "numbers": list(range(len(names))),
        "unpriced": len(_MODELS),
        "providers": [provider for provider, *_ in names],
        "models": [model for _, model, *_ in names],
        "price_ids": [row[0] for row in rows],
        "input_usd": [row[1] for row in rows],
        "cached_usd": [row[2] for row in rows],
        "output_usd": [row[3] for row in rows],
        "inputs": [row[4][0] for row in rows],
        "outputs": [row[4][1] for row in rows],
        "latencies": [row[4][2] for row in rows],
    }


def _unit_prices(
    workspace_id: UUID, now: datetime, provider: str, model: str
) -> tuple[int | None, Decimal, Decimal, Decimal]:
    """The price's id, and USD of one uncached, cached and output token, as the book quotes a small call."""
    costs = []
    quote = None
    for bucket in ("uncached_input_tokens", "cache_read_tokens", "output_tokens"):
        tokens = dict.fromkeys(
            ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"), 0
        ) | {bucket: _QUOTED_TOKENS}
        quote = current_book().quote(
            workspace_id=workspace_id,
            provider=provider,
            model=model,
            service_tier=ServiceTier.STANDARD.value,
            occurred_at=now,
            **tokens,
        )
        assert quote.cost_usd is not None, f"{provider}/{model} has no price any more"
        costs.append(quote.cost_usd / _QUOTED_TOKENS)
    assert quote is not None
    return quote.price_id, costs[0], costs[1], costs[2]


def _hour_bounds() -> Sequence[float]:
    """From which point of [0, 1) on each hour of the day is meant."""
    return [sum(_HOURS[:hour]) / sum(_HOURS) for hour in range(len(_HOURS))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", metavar="SLUG|ID")
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    started = perf_counter()
    stored = fill(find_workspace(options.workspace).id, options.events, now=utc_now())
    print(f"{stored:,} events in {perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
