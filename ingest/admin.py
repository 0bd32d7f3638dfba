"""The ledger in the operators' console: facts to look at. Limits, prices and jobs have modules of their own."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from ingest import admin_leases, admin_limits, admin_prices, admin_repricing, admin_summaries, admin_work
from ingest.admin_facts import LargeTableAdmin, usd
from ingest.models import Event, Meter, Refusal, Rollup

__all__ = ["admin_leases", "admin_limits", "admin_prices", "admin_repricing", "admin_summaries", "admin_work"]


class PricedFilter(admin.SimpleListFilter):
    """Whether the event had a price."""

    title = "price"
    parameter_name = "priced"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Priced"), ("no", "Without a price")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        return queryset.filter(cost_usd__isnull=self.value() == "no") if self.value() else queryset


@admin.register(Event)
class EventAdmin(LargeTableAdmin):
    list_display = (
        "external_request_id",
        "occurred_at",
        "provider",
        "model",
        "endpoint_tag",
        "data_mode",
        "status",
        "tokens",
        "cost",
    )
    newest_first = "occurred_at"
    workspace_filters = (("occurred_at", admin.DateFieldListFilter), "data_mode", "environment", "status", PricedFilter)
    workspace_search = ("=external_request_id",)
    search_help_text = "The whole externalRequestId."
    fieldsets = (
        (
            "Call",
            {
                "fields": (
                    "external_request_id",
                    "workspace",
                    "occurred_at",
                    "received_at",
                    ("provider", "model", "service_tier"),
                    ("endpoint_tag", "prompt_version"),
                    ("environment", "data_mode"),
                    ("status", "error_code", "latency_ms"),
                ),
                "description": "As its sender reported it. A repeat under the same id never changes the stored row.",
            },
        ),
        (
            "Tokens",
            {
                "fields": (
                    ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens"),
                    ("output_tokens", "reasoning_tokens"),
                    "total_tokens",
                )
            },
        ),
        (
            "Cost",
            {
                "fields": (
                    ("cost_usd", "price"),
                    ("charged_cost_usd", "charged_price", "repricing"),
                    "reported_cost_usd",
                ),
                "description": "Priced when it arrived; only a re-pricing changes it, and keeps what was charged.",
            },
        ),
        ("Sender", {"fields": ("api_key_id", ("user_id", "tenant_id", "feature_tag"), "metadata", "fingerprint")}),
    )
    readonly_fields = ("price", "charged_price", "repricing")

    @admin.display(description="tokens in / out")
    def tokens(self, event: Event) -> str:
        inputs = event.uncached_input_tokens + event.cache_read_tokens + event.cache_write_tokens
        return f"{inputs:,} / {event.output_tokens:,}"

    @admin.display(description="cost (USD)", empty_value="unpriced")
    def cost(self, event: Event) -> str | None:
        return None if event.cost_usd is None else usd(event.cost_usd)

    @admin.display(description="price row", empty_value="unpriced")
    def price(self, event: Event) -> Any:
        return _link("modelprice", "price", event.price_id)

    @admin.display(description="price row at first", empty_value="-")
    def charged_price(self, event: Event) -> Any:
        return _link("modelprice", "price", event.charged_price_id)

    @admin.display(description="re-priced by", empty_value="nobody")
    def repricing(self, event: Event) -> Any:
        return _link("repricing", "re-pricing", event.repricing_id)


def _link(model: str, word: str, pk: int | None) -> Any:
    """To the page of a row; None without one."""
    if pk is None:
        return None
    return format_html('<a href="{}">{} {}</a>', reverse(f"admin:ingest_{model}_change", args=[pk]), word, pk)


class _SumsAdmin(LargeTableAdmin):
    newest_first = "bucket_start"

    @admin.display(description="cost (USD)")
    def cost(self, sums: Rollup | Refusal) -> str:
        return usd(sums.cost_usd)


@admin.register(Rollup)
class RollupAdmin(_SumsAdmin):
    list_display = (
        "bucket_start",
        "provider",
        "model",
        "endpoint_tag",
        "prompt_version",
        "data_mode",
        "is_priced",
        "requests",
        "errors",
        "cost",
    )
    workspace_filters = (("bucket_start", admin.DateFieldListFilter), "data_mode", "environment", "is_priced")
    workspace_search = ("=model", "=endpoint_tag", "=prompt_version")
    search_help_text = "The whole model, endpointTag or promptVersion."


@admin.register(Refusal)
class RefusalAdmin(_SumsAdmin):
    list_display = ("bucket_start", "reason", "requests", "cost")
    workspace_filters = (("bucket_start", admin.DateFieldListFilter), "reason")


@admin.register(Meter)
class MeterAdmin(LargeTableAdmin):
    list_display = ("period_start", "period", "measure", "amount")
    newest_first = "period_start"
    workspace_filters = (("period_start", admin.DateFieldListFilter), "measure", "period")

    @admin.display(description="value")
    def amount(self, meter: Meter) -> str:
        return usd(meter.value)
