"""The USD limits of a workspace: two of the whole, any number on one scope."""

import uuid
from datetime import datetime
from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from ingest.models import ScopeKind, UnpricedPolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period
from workspaces.models import Workspace


class Enforcement(models.TextChoices):
    """What happens to telemetry once a budget is exceeded."""

    SOFT = "soft", "Soft stop: say so, keep taking telemetry"
    HARD = "hard", "Hard stop: refuse telemetry (402); provider calls continue"


class BudgetPeriod(models.TextChoices):
    """Over what a budget counts."""

    DAY = Period.DAY.value, "UTC day"
    MONTH = Period.MONTH.value, "UTC month"


# Shares at which people are told, besides going over the limit.
DEFAULT_THRESHOLDS = (Decimal("0.5"), Decimal("0.8"))
# The names of the two budgets of the whole workspace.
WORKSPACE_NAMES = {BudgetPeriod.DAY: "Daily budget", BudgetPeriod.MONTH: "Monthly budget"}


def default_thresholds() -> list[Decimal]:
    """The shares at which people are told unless somebody says otherwise."""
    return list(DEFAULT_THRESHOLDS)


class BudgetSettings(models.Model):
    """How a workspace's budgets behave; exists once somebody has set them."""

    workspace = models.OneToOneField(
        Workspace, on_delete=models.CASCADE, primary_key=True, related_name="budget_settings"
    )
    warning_threshold_ratio = models.DecimalField(
        max_digits=5, decimal_places=4, default=Decimal("0.8"), help_text="Share of a limit at which people are warned."
    )
    enforcement = models.CharField(max_length=4, choices=Enforcement, default=Enforcement.SOFT)
    updated_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        verbose_name_plural = "budget settings"
        constraints = (
            models.CheckConstraint(
                condition=Q(warning_threshold_ratio__gt=0, warning_threshold_ratio__lte=1),
                name="budget_settings_threshold_is_share",
            ),
        )

    def __str__(self) -> str:
        return f"Budget settings of {self.workspace}"


class Budget(models.Model):
    """A USD limit on what a scope of a workspace spends in a UTC day or month.

    Without a scope it is one of the two budgets of the whole workspace, whose amount, warning and enforcement are set
    together with `BudgetSettings`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=100, help_text="What refusals and alerts call it.")
    scope_kind = models.CharField(max_length=20, choices=ScopeKind, blank=True, default="")
    scope_value = models.CharField(max_length=200, blank=True, default="", help_text="Empty for each value.")
    is_each_value = models.BooleanField(default=False)
    period = models.CharField(max_length=10, choices=BudgetPeriod)
    limit_usd = models.DecimalField(max_digits=20, decimal_places=12, help_text="USD.")
    enforcement = models.CharField(max_length=4, choices=Enforcement, default=Enforcement.SOFT)
    thresholds = ArrayField(
        models.DecimalField(max_digits=5, decimal_places=4),
        default=default_thresholds,
        blank=True,
        help_text="Shares of the limit below 1, ascending. Going over the limit is always told.",
    )
    thresholds_usd = ArrayField(
        models.DecimalField(max_digits=20, decimal_places=12), default=list, blank=True, help_text="USD, ascending."
    )
    unpriced = models.CharField(max_length=10, choices=UnpricedPolicy, default=UnpricedPolicy.IGNORE)
    estimate_usd_per_1m = models.DecimalField(
        max_digits=18, decimal_places=6, null=True, blank=True, help_text="USD per 1M tokens; only to estimate."
    )
    raised_limit_usd = models.DecimalField(
        max_digits=20, decimal_places=12, null=True, blank=True, help_text="USD; holds before `raised_until`."
    )
    raised_until = models.DateTimeField(null=True, blank=True)
    raise_reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    updated_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "period"], condition=Q(scope_kind=""), name="budget_one_a_period"
            ),
            models.UniqueConstraint(fields=["workspace", "name"], name="budget_name_unique"),
            models.CheckConstraint(condition=Q(limit_usd__gt=0), name="budget_limit_positive"),
            models.CheckConstraint(
                condition=Q(raised_limit_usd=None, raised_until=None)
                | Q(raised_limit_usd__isnull=False, raised_until__isnull=False),
                name="budget_raise_whole",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_of_workspace(self) -> bool:
        """Whether it is one of the two that `BudgetSettings` rule."""
        return not self.scope_kind

    def is_raised_at(self, now: datetime) -> bool:
        """Whether a raise holds at `now` (aware): it ends by the clock."""
        return self.raised_until is not None and now < self.raised_until

    def end_raise(self) -> None:
        """Forget the raise; not saved yet."""
        self.raised_limit_usd, self.raised_until, self.raise_reason = None, None, ""

    def end_useless_raise(self) -> None:
        """Forget a raise to no more than the limit, which would lower it by now; not saved yet."""
        if self.raised_limit_usd is not None and self.raised_limit_usd <= self.limit_usd:
            self.end_raise()
