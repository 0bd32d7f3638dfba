"""Prices that change under stored events, and re-pricings asked for, confirmed and worked on, for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ingest import repricing
from ingest.models import Event, LimitCrossing, Meter, ModelPrice, Repricing, RepricingDay, RepricingState
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from tests import prices
from tests.conftest import Client
from tests.factories import OperatorFactory
from tests.prices import usd
from workspaces.models import Workspace

HOST, DAY = "openai", timedelta(days=1)
# Input tokens that cost 1 USD at 1 USD per 1M tokens.
MILLION = 1_000_000


def price(model: str, usd_per_1m: str) -> ModelPrice:
    """From now on the catalogue says that 1M input tokens of `model` cost so much, and output nothing."""
    return prices.add(OperatorFactory(), model=model, unit_prices=usd(usd_per_1m, "0"))


def asked(opened: Any, **changes: Any) -> Repricing:
    """A re-pricing of the last ten days that the owner has asked for."""
    now = utc_now()
    wish: dict[str, Any] = {
        "provider": "",
        "models_sent": [],
        "start": now - 10 * DAY,
        "end": now,
        "only_unpriced": False,
        "reason": "the price was wrong",
    }
    return repricing.request_repricing(opened.workspace, acting_user=opened.owner, **wish | changes)


def worked_on(job: Repricing, *states: RepricingState) -> Repricing:
    """The job after the workers' sweeps; fails if it does not come to one of `states`."""
    repricing.work_on_repricings(30)
    job.refresh_from_db()
    assert job.state in states, job.error
    return job


def previewed(opened: Any, **changes: Any) -> Repricing:
    """A re-pricing that waits for confirmation."""
    return worked_on(asked(opened, **changes), RepricingState.PREVIEWED)


def run(job: Repricing, opened: Any) -> Repricing:
    """The job, confirmed and done."""
    repricing.run_repricing(job, acting_user=opened.owner)
    return worked_on(job, RepricingState.DONE)


def repriced(opened: Any, **changes: Any) -> Repricing:
    """A re-pricing from the wish to its end; one that finds nothing to change ends without being confirmed."""
    job = worked_on(asked(opened, **changes), RepricingState.PREVIEWED, RepricingState.DONE)
    return job if job.state == RepricingState.DONE else run(job, opened)


def costs(workspace: Workspace, **fields: Any) -> list[Decimal | None]:
    """What the workspace's events cost, in the order of arrival."""
    return list(Event.objects.filter(workspace=workspace, **fields).order_by("pk").values_list("cost_usd", flat=True))


def days_of(job: Repricing, *, is_preview: bool) -> list[tuple[datetime, int, int, Decimal, Decimal]]:
    """What the job would change, or has changed, by day."""
    rows = RepricingDay.objects.filter(repricing=job, is_preview=is_preview).order_by("day")
    return list(rows.values_list("day", "rows", "newly_priced", "before_usd", "after_usd"))


def crossed(workspace: Workspace) -> Sequence[tuple[str, Decimal, datetime]]:
    """Every crossing of the workspace's limits: whose, at which threshold, of which period."""
    rows = LimitCrossing.objects.filter(limit__workspace=workspace).order_by("period_start", "threshold")
    return list(rows.values_list("limit__name", "threshold", "period_start"))


def send(client: Client, model: str, **changes: Any) -> None:
    """One event of 1M input tokens, accepted."""
    fields = {"provider": HOST, "model": model, "inputTokens": MILLION, "outputTokens": 0}
    answer = client.send(**fields | changes)
    assert answer.status == 200, answer


def limit(client: Client, amount: str, **fields: Any) -> Any:
    """A USD limit of this day that refuses; of the whole workspace, unless told otherwise."""
    facts: dict[str, Any] = {
        "source_id": f"{fields.get('scope_kind', '')} {fields.get('scope_value', '')}",
        "name": "Daily",
        "measure": "usd",
        "period": "day",
        "amount": Decimal(amount),
        "thresholds": (Decimal("0.5"), Decimal(1)),
        "enforce": True,
    }
    return put_limit(client.workspace_id, "tests", LimitSpec(**facts | fields))


def todays_meters(client: Client) -> dict[tuple[str, str], tuple[Decimal, int]]:
    """USD and unpriced tokens of today's meters, by scope."""
    rows = Meter.objects.filter(
        workspace_id=client.workspace_id, measure="usd", period="day", period_start=day_of(utc_now()).start
    )
    return {(row.scope_kind, row.scope_value): (row.value, row.unpriced_tokens) for row in rows}
