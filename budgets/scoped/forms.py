"""The forms for budgets on scopes. What is allowed is decided in `budgets.scoped.services`."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils import timezone

from budgets.forms import LimitField
from budgets.models import DEFAULT_THRESHOLDS, BudgetPeriod, Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.words import thresholds_in_words
from ingest.models import DataMode, Environment, ScopeKind, UnpricedPolicy
from ingest.scopes import cleaned_value
from opsmeter_site.lib.errors import FieldError, InvalidInput, OpsmeterError
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.wire import plain_number
from workspaces.models import ApiKey, Workspace

VALUES_ID = "scope-values"
REPLAY_DAYS = (30, 90)
_ONE, _EACH = "one", "each"
_THRESHOLD = re.compile(r"(?P<usd>\$)?\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|usd)?", re.IGNORECASE)
_FIELD_OF = {"thresholds_usd": "thresholds", "thresholdsUsd": "thresholds", "is_each_value": "which"}


class ThresholdsField(forms.CharField):
    """Shares and amounts in one line: "50%, 80%, 20 USD"; cleans to both as tuples, ascending."""

    def __init__(self, **wanted: Any) -> None:
        super().__init__(widget=forms.TextInput(attrs={"autocomplete": "off"}), required=False, **wanted)

    def clean(self, value: Any) -> tuple[tuple[Decimal, ...], tuple[Decimal, ...]]:
        """The shares (0.8 for 80%) and the amounts in USD."""
        shares, amounts = [], []
        for text in filter(None, (part.strip() for part in re.split(r"[,;]", super().clean(value)))):
            found = _THRESHOLD.fullmatch(text)
            if found is None or bool(found["usd"]) == bool(found["unit"]):
                raise ValidationError(f"“{text[:40]}” is neither like 80% nor like 20 USD.")
            number = Decimal(found["number"])
            if found["unit"] == "%":
                shares.append(number / 100)
            else:
                amounts.append(number)
        return tuple(sorted(set(shares))), tuple(sorted(set(amounts)))


class PriceField(forms.DecimalField):
    """USD per 1M tokens, as people type it."""

    default_error_messages: ClassVar[dict[str, Any]] = {"invalid": "Enter a number of USD, such as 5 or 0.60."}

    def __init__(self, **wanted: Any) -> None:
        widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 12})
        super().__init__(required=False, widget=widget, **wanted)

    def prepare_value(self, value: Any) -> Any:
        """Without the zeros that the database keeps; what somebody typed stays as it is."""
        return plain_number(value) if isinstance(value, Decimal) else value


class DraftForm(forms.Form):
    """A budget on a scope. `version` says which budget the form was made from, if there is one already."""

    scope_kind = forms.ChoiceField(label="What it covers", choices=ScopeKind.choices)
    which = forms.ChoiceField(
        label="One value or each",
        choices=[(_ONE, "One value"), (_EACH, "Each value by itself, also new ones")],
        widget=forms.RadioSelect,
        initial=_ONE,
    )
    scope_value = forms.CharField(
        label="Value",
        required=False,
        widget=forms.TextInput(attrs={"list": VALUES_ID, "autocomplete": "off"}),
        help_text="As events send it, letter by letter; an API key by its name.",
    )
    period = forms.ChoiceField(
        label="Period", choices=BudgetPeriod.choices, widget=forms.RadioSelect, initial=BudgetPeriod.DAY.value
    )
    limit_usd = LimitField(label="Limit (USD)", required=True)
    thresholds = ThresholdsField(
        label="Alert at",
        help_text="Such as <code>50%, 80%, 20 USD</code>. Going over the limit always alerts.",
    )
    enforcement = forms.ChoiceField(
        label="When it is exceeded",
        choices=Enforcement.choices,
        widget=forms.RadioSelect,
        initial=Enforcement.SOFT.value,
        help_text="A hard stop refuses telemetry of what the budget covers, and nothing else.",
    )
    unpriced = forms.ChoiceField(
        label="Requests without a price",
        choices=UnpricedPolicy.choices,
        widget=forms.RadioSelect,
        initial=UnpricedPolicy.IGNORE.value,
    )
    estimate_usd_per_1m = PriceField(
        label="Assumed price (USD per 1M tokens)", help_text="For input and output tokens alike."
    )
    name = forms.CharField(
        label="Name",
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="What refusals and alerts call it. Empty: made from the above.",
    )
    version = forms.CharField(widget=forms.HiddenInput, required=False, max_length=64)
    confirmed = forms.BooleanField(widget=forms.HiddenInput, required=False)

    def __init__(self, workspace: Workspace, *args: Any, stored: BudgetDraft | None = None, **wanted: Any) -> None:
        """With `stored`, what a budget says now, its scope and period are fixed."""
        super().__init__(*args, **wanted)
        self.workspace, self.stored = workspace, stored
        if stored is not None:
            for name in ("scope_kind", "which", "scope_value", "period"):
                del self.fields[name]

    def clean(self) -> dict[str, Any]:
        """The value of the scope as events carry it, in `scope_value`."""
        data = super().clean() or {}
        if self.stored is None and "scope_kind" in data and data.get("which") == _ONE:
            try:
                data["scope_value"] = scope_value(self.workspace, data["scope_kind"], data.get("scope_value", ""))
            except ValueError as error:
                self.add_error("scope_value", str(error))
        return data

    @property
    def draft(self) -> BudgetDraft:
        """What a valid form asks for."""
        data = self.cleaned_data
        is_each = self.stored.is_each_value if self.stored else data["which"] == _EACH
        shares, amounts = data["thresholds"]
        return BudgetDraft(
            scope_kind=self.stored.scope_kind if self.stored else data["scope_kind"],
            scope_value="" if is_each else self.stored.scope_value if self.stored else data["scope_value"],
            is_each_value=is_each,
            period=self.stored.period if self.stored else data["period"],
            limit_usd=data["limit_usd"],
            name=data["name"],
            enforcement=data["enforcement"],
            thresholds=shares,
            thresholds_usd=amounts,
            unpriced=data["unpriced"],
            estimate_usd_per_1m=data["estimate_usd_per_1m"] if data["unpriced"] == UnpricedPolicy.ESTIMATE else None,
        )

    def refuse(self, refusal: OpsmeterError) -> None:
        """Show what the service says against the draft."""
        if not refusal.errors:
            self.add_error(None, refusal.message)
            return
        errors = [FieldError(_FIELD_OF.get(each.field, each.field), each.message) for each in refusal.errors]
        add_refusal(self, InvalidInput(refusal.message, errors=errors))


class KeptForm(forms.Form):
    """What was typed, out of sight, under a second question."""

    def __init__(self, data: QueryDict) -> None:
        kept = {**{name: value for name, value in data.items() if name != "csrfmiddlewaretoken"}, "confirmed": "on"}
        super().__init__(kept, auto_id=False)
        for name in kept:
            self.fields[name] = forms.CharField(required=False, widget=forms.HiddenInput)


def form_initial(draft: BudgetDraft, version: str) -> dict[str, Any]:
    """What the form of a stored budget is filled with."""
    return {
        "limit_usd": draft.limit_usd,
        "thresholds": thresholds_in_words(draft),
        "enforcement": draft.enforcement,
        "unpriced": draft.unpriced,
        "estimate_usd_per_1m": draft.estimate_usd_per_1m,
        "name": draft.name,
        "version": version,
    }


def form_data(draft: BudgetDraft, version: str) -> dict[str, str]:
    """What the form posts to make a budget say `draft`, if `version` still holds then."""
    initial = form_initial(draft, version)
    return {
        name: "" if value is None else f"{plain_number(value)}" if isinstance(value, Decimal) else str(value)
        for name, value in initial.items()
    }


def suggested_initial(given: Mapping[str, str]) -> dict[str, Any]:
    """What a link to the editor fills in: `kind`, `value` or `each`."""
    kind = given.get("kind", "")
    return {
        "scope_kind": kind if kind in ScopeKind.values else ScopeKind.TENANT_ID.value,
        "which": _EACH if given.get("each") else _ONE,
        "scope_value": given.get("value", ""),
        "thresholds": ", ".join(f"{share:.0%}" for share in DEFAULT_THRESHOLDS),
    }


def scope_value(workspace: Workspace, kind: str, typed: str) -> str:
    """What somebody typed as events carry it; API keys are named. Raises ValueError with a sentence."""
    if not typed.strip():
        raise ValueError("Say which one, or choose each value.")
    if kind != ScopeKind.API_KEY_ID:
        return cleaned_value(kind, typed)
    named = ApiKey.objects.filter(workspace=workspace, name=typed.strip())
    # Of keys with one name at most one is not revoked.
    key = named.filter(revoked_at=None).first() or named.order_by("-pk").first()
    if key is None:
        raise ValueError("There is no API key with this name.")
    return str(key.pk)


class FilterForm(forms.Form):
    """Which budgets the list shows; what it cannot read filters nothing."""

    kind = forms.ChoiceField(
        label="Covers",
        required=False,
        choices=[("", "Everything"), ("workspace", "Whole workspace"), *ScopeKind.choices],
    )
    q = forms.CharField(
        label="Name or value", required=False, max_length=200, widget=forms.TextInput(attrs={"type": "search"})
    )

    @property
    def wanted(self) -> tuple[str, str]:
        """The kind, and the text in small letters; both may be empty."""
        self.is_valid()
        return self.cleaned_data.get("kind", ""), self.cleaned_data.get("q", "").strip().casefold()


class RaiseForm(forms.Form):
    """Another limit for a while."""

    limit_usd = LimitField(label="Limit until then (USD)", required=True)
    until = forms.DateTimeField(
        label="Until",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        error_messages={"invalid": "Enter a date and a time, such as 2026-11-30 18:00."},
    )
    reason = forms.CharField(label="Why", max_length=200)

    def __init__(self, workspace: Workspace, data: Any = None) -> None:
        super().__init__(data, auto_id="raise_%s")
        self.workspace = workspace
        self.fields["until"].help_text = f"By the clocks of {workspace.timezone}."

    def full_clean(self) -> None:
        """Times are those of the workspace."""
        with timezone.override(self.workspace.timezone):
            super().full_clean()


class AdjustForm(forms.Form):
    """USD to be counted besides, or not to be counted."""

    usd = forms.CharField(
        label="Amount (USD)",
        max_length=40,
        widget=forms.TextInput(attrs={"inputmode": "text", "autocomplete": "off", "size": 12}),
        help_text="Added to what is counted in the running period; with a minus it is taken off.",
    )
    scope_value = forms.CharField(label="Of which one", widget=forms.TextInput(attrs={"autocomplete": "off"}))
    reason = forms.CharField(label="Why", max_length=200)

    def __init__(self, workspace: Workspace, kind: str, data: Any = None, *, is_each_value: bool) -> None:
        super().__init__(data, auto_id="adjust_%s")
        self.workspace, self.kind = workspace, kind
        if not is_each_value:
            del self.fields["scope_value"]

    def clean_usd(self) -> Decimal:
        """A finite number; any sign that people write for minus."""
        try:
            amount = Decimal(self.cleaned_data["usd"].replace("−", "-").removeprefix("$").strip())
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite():
            raise ValidationError("Enter a number of USD, such as 5 or -12.50.")
        return amount

    def clean_scope_value(self) -> str:
        """The value as events carry it."""
        try:
            return scope_value(self.workspace, self.kind, self.cleaned_data["scope_value"])
        except ValueError as error:
            raise ValidationError(str(error)) from error


class RequestForm(forms.Form):
    """A request to be explained: a stored one by its id, or what one would say."""

    request = forms.CharField(label="externalRequestId of a stored request", required=False, max_length=200)
    data_mode = forms.ChoiceField(
        label="Data mode", required=False, choices=DataMode.choices, initial=DataMode.REAL.value
    )

    def __init__(self, workspace: Workspace, *args: Any, **wanted: Any) -> None:
        super().__init__(*args, **wanted)
        self.workspace = workspace
        for kind in ScopeKind:
            self.fields[kind.value] = _dimension(kind)

    def clean(self) -> dict[str, Any]:
        """The values as events carry them; what is empty is left out."""
        data = super().clean() or {}
        for kind in ScopeKind.values:
            try:
                data[kind] = scope_value(self.workspace, kind, data[kind]) if data.get(kind) else ""
            except ValueError as error:
                self.add_error(kind, str(error))
        return data

    @property
    def dimensions(self) -> Iterator[forms.BoundField]:
        """The fields of what a request says."""
        yield from (self[kind] for kind in ScopeKind.values)


def _dimension(kind: ScopeKind) -> forms.Field:
    if kind == ScopeKind.ENVIRONMENT:
        return forms.ChoiceField(label=str(kind.label), required=False, choices=Environment.choices)
    widget = forms.TextInput(attrs={"autocomplete": "off"})
    return forms.CharField(label=str(kind.label), required=False, max_length=200, widget=widget)
