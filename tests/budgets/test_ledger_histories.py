"""Whatever is done to budgets, prices, leases and rows, in whatever order: meters are the sums of their rows.

And every answer is what those rows say: an event is refused if and only if a hard stop that matches it was exceeded by
what was stored before, a lease is given if and only if its estimate still fits.
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest
import time_machine
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from budgets.models import Budget
from budgets.scoped.drafts import BudgetDraft, draft_of
from budgets.scoped.services import (
    adjust_budget,
    change_budget,
    create_budget,
    delete_budget,
    end_raise,
    raise_budget,
)
from budgets.services import update_budget_settings
from ingest import pricing
from ingest.audit import audit_workspace
from ingest.cleanup import delete_rows
from ingest.limits import estimated_usd
from ingest.meters import counted
from ingest.models import (
    CatalogVersion,
    Event,
    Lease,
    Limit,
    Meter,
    ModelPrice,
    Repricing,
    RepricingState,
    WorkspacePolicy,
)
from ingest.models.prices import SINCE_EVER
from ingest.repricing import request_repricing, run_repricing, work_on_repricings
from ingest.services import end_raises
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period, window_of
from tests.conftest import Client
from tests.factories import make_workspace

START = datetime(2026, 3, 29, 20, 0, tzinfo=UTC)
DAY = timedelta(days=1)
TOKENS = 1_000
# USD per 1M tokens, so that every event of 1,000 + 1,000 tokens costs round amounts of the same size.
PRICES = (Decimal(1), Decimal(2), Decimal(5))
LIMITS = (Decimal("0.003"), Decimal("0.004"), Decimal("0.01"), Decimal("0.05"))
TENANTS, MODELS, MODES = ("acme", 'Zoë "&/', "🦊"), ("priced", "unknown-yet"), ("real", "real", "test")

_numbers = itertools.count(1)


class History(RuleBasedStateMachine):
    """One workspace. `app` is the product, put here by the test."""

    app: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        self.clock = time_machine.travel(START, tick=False)
        self.traveller = self.clock.start()
        self.provider = f"host-{next(_numbers)}"
        self.client = Client(self.app, make_workspace("enterprise", requests_per_minute=1_000_000))
        self.workspace, self.owner = self.client.opened.workspace, self.client.opened.owner
        self.leases: list[str] = []
        self.sent: list[str] = []

    def teardown(self) -> None:
        """The clock is everybody's."""
        self.clock.stop()

    @initialize()
    def first_price(self) -> None:
        self._price("priced", Decimal(1))

    # --- What happens -------------------------------------------------------------------------------------------------

    @rule(
        tenant=st.sampled_from(TENANTS),
        model=st.sampled_from(MODELS),
        mode=st.sampled_from(MODES),
        days=st.sampled_from((0, 0, 0, 1, 3)),
        number=st.integers(1, 3),
    )
    def ingest(self, tenant: str, model: str, mode: str, days: int, number: int) -> None:
        for _ in range(number):
            self._send(f"e-{next(_numbers)}", tenant, model, mode, utc_now() - days * DAY)

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 50))
    def repeat(self, place: int) -> None:
        reply = self._post(self.sent[place % len(self.sent)], "acme", "priced", "real", utc_now())
        assert (reply.status, reply.json["duplicate"]) == (200, True)

    @rule(
        scope=st.sampled_from(
            (
                ("tenant_id", "acme"),
                ("tenant_id", 'Zoë "&/'),
                ("tenant_id", ""),
                ("model", "unknown-yet"),
                ("model", ""),
                ("api_key_id", "own"),
                ("environment", "prod"),
            )
        ),
        period=st.sampled_from(("day", "month")),
        limit=st.sampled_from(LIMITS),
        rest=st.sampled_from((("soft", "ignore"), ("hard", "ignore"), ("hard", "estimate"), ("hard", "block"))),
    )
    def create(self, scope: tuple[str, str], period: str, limit: Decimal, rest: tuple[str, str]) -> None:
        kind, value = scope
        draft = BudgetDraft(
            scope_kind=kind,
            scope_value=str(self.client.opened.api_key.pk) if value == "own" else value,
            is_each_value=not value,
            period=period,
            limit_usd=limit,
            name=f"Budget {next(_numbers)}",
            enforcement=rest[0],
            unpriced=rest[1],
            estimate_usd_per_1m=Decimal("1.5") if rest[1] == "estimate" else None,
            thresholds_usd=(Decimal("0.001"),),
        )
        create_budget(self.workspace, draft, acting_user=self.owner)

    @rule(limit=st.sampled_from((None, *LIMITS)), enforcement=st.sampled_from(("soft", "hard")))
    def set_workspace_budget(self, limit: Decimal | None, enforcement: str) -> None:
        update_budget_settings(self.workspace, acting_user=self.owner, daily_limit_usd=limit, enforcement=enforcement)

    @precondition(lambda self: self._scoped())
    @rule(place=st.integers(0, 20), limit=st.sampled_from(LIMITS))
    def edit(self, place: int, limit: Decimal) -> None:
        budget = self._pick(self._scoped(), place)
        draft = draft_of(budget)
        fields = {name: getattr(draft, name) for name in BudgetDraft.__dataclass_fields__} | {"limit_usd": limit}
        change_budget(budget, BudgetDraft(**fields), acting_user=self.owner)

    @precondition(lambda self: self._budgets())
    @rule(place=st.integers(0, 20), hours=st.sampled_from((1, 30)))
    def lift(self, place: int, hours: int) -> None:
        budget = self._pick(self._budgets(), place)
        until = utc_now() + timedelta(hours=hours)
        raise_budget(budget, budget.limit_usd * 2, until, "a launch", acting_user=self.owner)

    @precondition(lambda self: self._budgets())
    @rule(place=st.integers(0, 20))
    def end_lift(self, place: int) -> None:
        end_raise(self._pick(self._budgets(), place), acting_user=self.owner)

    @precondition(lambda self: self._budgets())
    @rule(place=st.integers(0, 20), usd=st.sampled_from((Decimal("-0.002"), Decimal("0.001"))))
    def adjust(self, place: int, usd: Decimal) -> None:
        budget = self._pick(self._budgets(), place)
        value = "acme" if budget.is_each_value else ""
        adjust_budget(budget, usd, "a test call", acting_user=self.owner, scope_value=value)

    @precondition(lambda self: self._scoped())
    @rule(place=st.integers(0, 20))
    def delete(self, place: int) -> None:
        delete_budget(self._pick(self._scoped(), place), acting_user=self.owner)

    @rule(
        tenant=st.sampled_from(TENANTS),
        usd=st.sampled_from(("0.001", "0.002", "0.02")),
        seconds=st.sampled_from((5, 3_600)),
    )
    def lease(self, tenant: str, usd: str, seconds: int) -> None:
        external_id = f"l-{next(_numbers)}"
        labels = {"provider": self.provider, "model": "priced", "tenantId": tenant}
        fits = self._fits(labels, Decimal(usd))
        reply = self.client.post(
            "/v1/budgets/leases",
            labels | {"externalRequestId": external_id, "estimatedCostUsd": float(usd), "leaseSeconds": seconds},
        )
        assert reply.json["allowed"] is fits, reply.json
        if fits:
            self.leases.append(external_id)

    @precondition(lambda self: self.leases)
    @rule(place=st.integers(0, 20), model=st.sampled_from(MODELS))
    def settle(self, place: int, model: str) -> None:
        self._send(self.leases.pop(place % len(self.leases)), "acme", model, "real", utc_now())

    @precondition(lambda self: self.leases)
    @rule(place=st.integers(0, 20))
    def release(self, place: int) -> None:
        external_id = self.leases.pop(place % len(self.leases))
        reply = self.client.post("/v1/budgets/leases/release", {"externalRequestId": external_id})
        assert reply.status == 200

    @rule(model=st.sampled_from(MODELS), usd=st.sampled_from(PRICES))
    def correct_price(self, model: str, usd: Decimal) -> None:
        self._price(model, usd)

    @rule(only_unpriced=st.booleans())
    def reprice(self, only_unpriced: bool) -> None:
        if not Event.objects.filter(workspace=self.workspace).exists():
            return
        now = utc_now()
        job = request_repricing(
            self.workspace,
            provider="",
            models_sent=[],
            start=now - 4 * DAY,
            end=now,
            only_unpriced=only_unpriced,
            reason="a price was corrected",
            acting_user=self.owner,
        )
        if self._work(job, RepricingState.PREVIEWED, RepricingState.DONE) == RepricingState.PREVIEWED:
            run_repricing(job, acting_user=self.owner)
            self._work(job, RepricingState.DONE)

    @rule(hours=st.sampled_from((0.1, 2, 5, 24)))
    def time_passes(self, hours: float) -> None:
        self.traveller.shift(timedelta(hours=hours))

    @rule(modes=st.sampled_from((["real"], ["real", "test"], ["test"])))
    def count_other_modes(self, modes: list[str]) -> None:
        update_budget_settings(self.workspace, acting_user=self.owner, counted_data_modes=modes)

    @rule()
    def delete_test_rows(self) -> None:
        delete_rows(self.workspace.pk, "test", created_by_id=None, acting_user=self.owner)
        rows = Event.objects.filter(workspace=self.workspace)
        stored = set(rows.values_list("external_request_id", flat=True))
        self.sent = [external_id for external_id in self.sent if external_id in stored]

    # --- What must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def meters_are_sums(self) -> None:
        now, rows = utc_now(), self._rows()
        for meter in Meter.objects.filter(workspace=self.workspace, measure="usd"):
            window = window_of(Period(meter.period), meter.period_start)
            found = [
                row
                for row in rows
                if window.start <= row.occurred_at < window.end
                and (not meter.scope_kind or _value(row, meter.scope_kind) == meter.scope_value)
            ]
            assert meter.value == sum((row.cost_usd or 0 for row in found), Decimal(0)), str(meter)
            assert meter.unpriced_tokens == sum(2 * TOKENS for row in found if row.cost_usd is None), str(meter)
        for limit in Limit.objects.filter(workspace=self.workspace, measure="usd"):
            for value, usd in counted(limit, now).items():
                assert usd == self._spent(limit, value, now, rows), str(limit)
        report = audit_workspace(self.workspace.pk, now)
        assert report.is_exact, report.to_json()

    @invariant()
    def whatever_is_over_has_a_crossing(self) -> None:
        now = utc_now()
        end_raises(self.workspace.pk, now)
        for limit in Limit.objects.filter(workspace=self.workspace, measure="usd"):
            start = window_of(Period(limit.period), now).start
            for value, usd in counted(limit, now).items():
                crossed = limit.crossings.filter(
                    period_start=start,
                    scope_value=value if limit.is_each_value else "",
                    threshold=1,
                    amount=limit.amount_at(now),
                )
                assert usd <= limit.amount_at(now) or crossed.count() == 1, str(limit)

    # --- How ----------------------------------------------------------------------------------------------------------

    def _send(self, external_id: str, tenant: str, model: str, mode: str, moment: datetime) -> None:
        is_refused = self._is_refused(tenant, model, mode, moment)
        reply = self._post(external_id, tenant, model, mode, moment)
        assert reply.status == (402 if is_refused else 200), reply.json
        if not is_refused:
            self.sent.append(external_id)

    def _post(self, external_id: str, tenant: str, model: str, mode: str, moment: datetime) -> Any:
        return self.client.send(
            externalRequestId=external_id,
            provider=self.provider,
            model=model,
            tenantId=tenant,
            inputTokens=TOKENS,
            outputTokens=TOKENS,
            dataMode=mode,
            createdAt=moment.isoformat(),
        )

    def _is_refused(self, tenant: str, model: str, mode: str, moment: datetime) -> bool:
        if mode not in self._modes():
            return False
        row = Event(tenant_id=tenant, model=model, provider=self.provider, environment="prod", api_key_id=self._key())
        rows = self._rows()
        return any(
            self._spent(limit, _value(row, limit.scope_kind), moment, rows) > limit.amount_at(utc_now())
            or (limit.unpriced == "block" and model not in self._priced())
            for limit in self._hard(row)
        )

    def _fits(self, labels: dict[str, str], usd: Decimal) -> bool:
        if "real" not in self._modes():
            return True  # what no budget counts needs no room
        now, rows = utc_now(), self._rows()
        row = Event(
            tenant_id=labels["tenantId"],
            model=labels["model"],
            provider=self.provider,
            environment="prod",
            api_key_id=self._key(),
        )
        live = list(Lease.objects.filter(workspace=self.workspace, closed_at=None, expires_at__gt=now))
        return all(
            self._spent(limit, _value(row, limit.scope_kind), now, rows)
            + sum(
                lease.usd
                for lease in live
                if not limit.scope_kind or _value(lease, limit.scope_kind) == _value(row, limit.scope_kind)
            )
            + usd
            <= limit.amount_at(now)
            for limit in self._hard(row)
        )

    def _hard(self, row: Event) -> Iterator[Limit]:
        for limit in Limit.objects.filter(workspace=self.workspace, measure="usd", enforce=True):
            if limit.is_each_value or not limit.scope_kind or _value(row, limit.scope_kind) == limit.scope_value:
                yield limit

    def _spent(self, limit: Limit, value: str, moment: datetime, rows: list[Event]) -> Decimal:
        window = window_of(Period(limit.period), moment)
        found = [
            row
            for row in rows
            if window.start <= row.occurred_at < window.end
            and (not limit.scope_kind or _value(row, limit.scope_kind) == value)
        ]
        tokens = sum(2 * TOKENS for row in found if row.cost_usd is None)
        adjusted = limit.adjustments.filter(period_start=window.start, scope_value=value if limit.is_each_value else "")
        return (
            sum((row.cost_usd or 0 for row in found), Decimal(0))
            + estimated_usd(tokens, limit.estimate_usd_per_1m)
            + sum((one.usd for one in adjusted), Decimal(0))
        )

    def _rows(self) -> list[Event]:
        return list(Event.objects.filter(workspace=self.workspace, data_mode__in=self._modes()))

    def _modes(self) -> list[str]:
        return WorkspacePolicy.objects.get(pk=self.workspace.pk).counted_data_modes

    def _key(self) -> int:
        key_id: int = self.client.opened.api_key.pk
        return key_id

    def _budgets(self) -> list[Budget]:
        return list(Budget.objects.filter(workspace=self.workspace).order_by("created_at", "name"))

    def _scoped(self) -> list[Budget]:
        return [budget for budget in self._budgets() if budget.scope_kind]

    @staticmethod
    def _pick(budgets: list[Budget], place: int) -> Budget:
        return budgets[place % len(budgets)]

    def _priced(self) -> set[str]:
        return set(ModelPrice.objects.filter(provider=self.provider).values_list("model", flat=True))

    def _price(self, model: str, usd: Decimal) -> None:
        revision = ModelPrice.objects.filter(provider=self.provider, model=model).count() + 1
        ModelPrice.objects.create(
            provider=self.provider,
            model=model,
            effective_from=SINCE_EVER,
            input_usd_per_1m=usd,
            output_usd_per_1m=usd,
            revision=revision,
            source="operator",
            checked_on=date(2026, 1, 1),
        )
        version, _ = CatalogVersion.objects.get_or_create(id=CatalogVersion.THE_ROW)
        version.version += 1
        version.save()
        pricing.forget_book()

    def _work(self, job: Repricing, *states: RepricingState) -> str:
        for _ in range(20):
            work_on_repricings(0.01)
            job.refresh_from_db()
            if job.state in states:
                return job.state
        raise AssertionError(f"{job.state}, none of {states}: {job.error}")


def _value(row: Any, kind: str) -> str:
    return str(getattr(row, kind)) if kind else ""


@pytest.fixture
def machine(app: Any) -> Iterator[type[History]]:
    """The machine on the product of this test."""
    History.app = app
    yield History
    History.app = None


def test_meters_are_the_sums_of_their_rows_whatever_happens(machine: type[History]) -> None:
    # A shorter history that goes wrong as well is not looked for: that would take minutes.
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
            report_multiple_bugs=False,
        ),
    )
