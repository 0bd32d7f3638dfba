"""Spend of the past, as the ledger keeps it, for tests that look back on weeks of it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from ingest import meters
from ingest.models import Rollup, WorkspacePolicy
from ingest.rollups import dimensions_key
from opsmeter_site.lib.periods import quarter_hour_of

DIMENSIONS = ("openai", "gpt-4o-mini", "unknown", "unknown", "prod")


def spend(workspace_id: UUID, usd_at: Mapping[datetime, Decimal | int | str], data_mode: str = "real") -> None:
    """Roll-ups and meters of a workspace that sent one request at each moment, at that cost in USD.

    The moments lie in different quarter hours, of which none has roll-ups of `data_mode` yet.
    """
    provider, model, endpoint_tag, prompt_version, environment = DIMENSIONS
    rows = [
        Rollup(
            workspace_id=workspace_id,
            bucket_start=quarter_hour_of(moment),
            dimensions_key=dimensions_key(*DIMENSIONS, data_mode, True),
            provider=provider,
            model=model,
            endpoint_tag=endpoint_tag,
            prompt_version=prompt_version,
            environment=environment,
            data_mode=data_mode,
            is_priced=True,
            requests=1,
            errors=0,
            uncached_input_tokens=10,
            cache_read_tokens=0,
            cache_write_tokens=0,
            output_tokens=10,
            reasoning_tokens=0,
            latency_ms_sum=0,
            latency_count=0,
            cost_usd=Decimal(usd),
        )
        for moment, usd in usd_at.items()
    ]
    Rollup.objects.bulk_create(rows)
    meters.rebuild(workspace_id, WorkspacePolicy.objects.get(workspace_id=workspace_id))
