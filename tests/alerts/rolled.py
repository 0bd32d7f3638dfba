"""Roll-ups of a workspace as tests of rules want them, without the events that they would be made of."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from ingest.models import Rollup
from ingest.rollups import dimensions_key
from opsmeter_site.lib.periods import quarter_hour_of
from workspaces.models import Workspace


def rollup(
    workspace: Workspace, moment: datetime, usd: Decimal | int | str = 0, requests: int = 1, **facts: Any
) -> Rollup:
    """`requests` at `moment` that cost `usd` together; `facts` are columns. Not stored yet."""
    columns = {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "endpoint_tag": "unknown",
        "prompt_version": "unknown",
        "environment": "prod",
        "data_mode": "real",
        "is_priced": True,
        **facts,
    }
    return Rollup(
        workspace_id=workspace.pk,
        bucket_start=quarter_hour_of(moment),
        dimensions_key=dimensions_key(*columns.values()),
        requests=requests,
        errors=0,
        uncached_input_tokens=10 * requests,
        cache_read_tokens=0,
        cache_write_tokens=0,
        output_tokens=10 * requests,
        reasoning_tokens=0,
        latency_ms_sum=0,
        latency_count=0,
        cost_usd=Decimal(usd),
        **columns,
    )


def roll(workspace: Workspace, moment: datetime, usd: Decimal | int | str = 0, requests: int = 1, **facts: Any) -> None:
    """`rollup`, stored."""
    rollup(workspace, moment, usd, requests, **facts).save()
