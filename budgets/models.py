"""The USD limits of a workspace."""

import uuid
from decimal import Decimal

from django.db import models
from django.db.models import Q

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
    """A USD limit on everything a workspace spends in a UTC day or month."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="budgets")
    period = models.CharField(max_length=10, choices=BudgetPeriod)
    limit_usd = models.DecimalField(max_digits=20, decimal_places=12, help_text="USD.")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "period"], name="budget_one_a_period"),
            models.CheckConstraint(condition=Q(limit_usd__gt=0), name="budget_limit_positive"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """What refusals and alerts call it."""
        return "Daily budget" if self.period == BudgetPeriod.DAY else "Monthly budget"
