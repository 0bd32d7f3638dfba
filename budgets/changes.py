"""Changing budgets on a page: only what the person has seen, and not before they know what it does at once."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q, Sum

from budgets.gauges import moment_in_words
from budgets.selectors import BudgetStatus, BudgetValues, workspace_status
from budgets.services import lock_settings, store_settings
from budgets.simulator import refuses_telemetry
from ingest.limits import is_over
from ingest.meters import current_meters
from ingest.models import Measure, Rollup
from opsmeter_site.lib.formats import usd, usd_exact
from opsmeter_site.lib.periods import Period, window_of
from opsmeter_site.lib.wire import plain_number
from workspaces.models import User, Workspace

_ZERO = Decimal(0)
_LIMIT_OF = {Period.DAY: "daily_limit_usd", Period.MONTH: "monthly_limit_usd"}
_NAME_OF = {Period.DAY: "daily", Period.MONTH: "monthly"}


class BudgetsChanged(Exception):
    """Somebody else has changed the budgets since they were shown; `now` is what they are."""

    def __init__(self, now: BudgetValues) -> None:
        super().__init__("The budgets have been changed since.")
        self.now = now


@dataclass(frozen=True, slots=True)
class Change:
    """What the budgets were before a change and what they are after it."""

    old: BudgetValues
    new: BudgetValues

    @property
    def is_one(self) -> bool:
        """Whether anything changed."""
        return self.old != self.new


def version_of(values: BudgetValues) -> str:
    """A short text that is the same if and only if the values are; forms carry it to say what they were made from."""
    texts = [str(plain_number(each)) if isinstance(each, Decimal) else each for each in asdict(values).values()]
    return sha256(json.dumps(texts).encode()).hexdigest()[:16]


@transaction.atomic
def change_budgets(workspace: Workspace, *, acting_user: User, seen: str, values: BudgetValues) -> Change:
    """Make `values` the workspace's budgets if they still are those of version `seen`, or already are `values`.

    Raises `BudgetsChanged` otherwise, and `InvalidInput` like `update_budget_settings`.
    """
    locked = lock_settings(workspace, values.counted_data_modes)
    old = locked.values
    if version_of(old) not in (seen, version_of(values)):
        raise BudgetsChanged(old)
    return Change(old, store_settings(workspace, locked, values, acting_user=acting_user))


def consequences(workspace_id: UUID, old: BudgetValues, new: BudgetValues, zone: ZoneInfo, now: datetime) -> list[str]:
    """What the change would do to telemetry and alerts at once, in sentences; nothing for a change that may wait."""
    if old == new:
        return []
    status = workspace_status(workspace_id, now)
    standing = {Period.DAY: status.daily, Period.MONTH: status.monthly}
    found = list(_exceeded_at_once(standing, _spend(workspace_id, standing, old, new, now), old, new, zone, now))
    if (
        not found
        and refuses_telemetry(new)
        and not refuses_telemetry(old)
        and (new.daily_limit_usd or new.monthly_limit_usd)
    ):
        found.append(
            "From now on telemetry is refused (402) whenever spend is above a limit, until that day or month is over. "
            "What is refused is counted, but not stored."
        )
    if refuses_telemetry(new) and found:
        found.append("Calls to your providers always continue.")
    return found


def _exceeded_at_once(
    standing: Mapping[Period, BudgetStatus],
    spend: Mapping[Period, Decimal],
    old: BudgetValues,
    new: BudgetValues,
    zone: ZoneInfo,
    now: datetime,
) -> Iterator[str]:
    for period, before in standing.items():
        limit = _in_force(before, getattr(old, _LIMIT_OF[period]), getattr(new, _LIMIT_OF[period]))
        if limit is None or not is_over(Measure.USD, limit, spend[period]):
            continue
        spent = f"{usd(spend[period])} of {usd_exact(plain_number(limit))} is spent"
        until = moment_in_words(window_of(period, now).end, zone)
        if refuses_telemetry(new) and not (before.is_exceeded and refuses_telemetry(old)):
            yield f"Telemetry would be refused (402) from now until {until}: {spent} this {period}."
        elif not refuses_telemetry(new) and not before.is_exceeded:
            yield (
                f"The {_NAME_OF[period]} budget is exceeded at once: {spent} this {period}. "
                f"Alerts and answers say so until {until}; nothing is refused."
            )


def _in_force(before: BudgetStatus, old: Decimal | None, new: Decimal | None) -> Decimal | None:
    """What would hold instead of `new`: a raise goes on as long as it is above the limit."""
    raised = before.limit_usd if old is not None and before.limit_usd != old else None
    return new if new is None or raised is None else max(new, raised)


def _spend(
    workspace_id: UUID, standing: Mapping[Period, BudgetStatus], old: BudgetValues, new: BudgetValues, now: datetime
) -> dict[Period, Decimal]:
    """USD in the running periods as `new` counts them; estimates and adjustments stay what they are."""
    counted = {period: before.spend_usd for period, before in standing.items()}
    if old.counted_data_modes == new.counted_data_modes:
        return counted
    meters = current_meters(workspace_id, now)
    starts = {period: window_of(period, now).start for period in Period}
    after = Rollup.objects.filter(
        workspace_id=workspace_id,
        data_mode__in=new.counted_data_modes,
        bucket_start__gte=starts[Period.MONTH],
        bucket_start__lt=window_of(Period.MONTH, now).end,
    ).aggregate(
        **{
            period.value: Sum(
                "cost_usd", filter=Q(bucket_start__gte=start, bucket_start__lt=window_of(period, now).end)
            )
            for period, start in starts.items()
        }
    )
    stored = {period: meters.get((Measure.USD.value, period.value), _ZERO) for period in Period}
    return {period: counted[period] - stored[period] + (after[period.value] or _ZERO) for period in Period}
