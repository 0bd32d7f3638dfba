"""Spend about to happen: leases hold an estimate under the id of a call, until its event arrives or time is up."""

from django.db import models

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace

from .events import DataMode, Environment
from .limits import ScopeKind


class LeaseOutcome(models.TextChoices):
    """How a lease was closed before its time was up."""

    SETTLED = "settled", "Settled: its event was stored"
    RELEASED = "released", "Released: the call was not made"


class Lease(models.Model):
    """An estimate held under an externalRequestId. Live while it is not closed and `expires_at` is ahead."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    external_request_id = models.CharField(max_length=200)
    api_key_id = models.BigIntegerField(help_text="The workspaces.ApiKey that asked for it.")
    provider = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    endpoint_tag = models.CharField(max_length=200)
    prompt_version = models.CharField(max_length=200)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)
    user_id = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200)
    usd = models.DecimalField(max_digits=20, decimal_places=12, help_text="The estimate; 0 if there is no price.")
    unpriced_tokens = models.BigIntegerField(help_text="The estimate, if there is no price.")
    created_at = models.DateTimeField(default=utc_now)
    expires_at = models.DateTimeField(help_text="A whole second.")
    closed_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=10, choices=LeaseOutcome, blank=True, default="")
    settled_usd = models.DecimalField(
        max_digits=20, decimal_places=12, null=True, help_text="What the event cost; null: unpriced, or not settled."
    )

    class Meta:
        constraints = (models.UniqueConstraint(fields=["workspace", "external_request_id"], name="lease_unique"),)
        indexes = (models.Index(fields=["workspace", "expires_at"], name="lease_by_expiry"),)

    def __str__(self) -> str:
        return self.external_request_id


class Hold(models.Model):
    """The sum of the live leases of one scope that expire in the same second: nothing has to take expired ones out.

    Kept for the whole workspace and for every metered scope, of counted data modes only.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    scope_kind = models.CharField(max_length=20, choices=ScopeKind, blank=True)
    scope_value = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField()
    usd = models.DecimalField(max_digits=24, decimal_places=12)
    unpriced_tokens = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "scope_kind", "scope_value", "expires_at"], name="hold_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.usd} USD until {self.expires_at:%Y-%m-%d %H:%M:%S}"
