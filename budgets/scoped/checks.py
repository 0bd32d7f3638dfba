"""What a budget may say, and what somebody may do to one: every fault is found at once and named by its field."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from budgets.models import BudgetPeriod, Enforcement
from budgets.scoped.drafts import BudgetDraft
from ingest.limits import OVER
from ingest.models import ScopeKind, UnpricedPolicy
from ingest.scopes import cleaned_value
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces.inputs import clean_text
from workspaces.models import ApiKey

MAX_LIMIT_USD = Decimal(10_000_000)
LIMIT_DECIMALS = 12
THRESHOLD_DECIMALS = 4
MAX_ESTIMATE_USD_PER_1M = Decimal(100_000)
ESTIMATE_DECIMALS = 6
MOST_THRESHOLDS = 10
LONGEST_NAME = 100
LONGEST_REASON = 200
LONGEST_RAISE = timedelta(days=92)

_SCOPE_FIELDS = ("scope_kind", "scope_value", "is_each_value", "period")


def checked(workspace_id: UUID, draft: BudgetDraft) -> BudgetDraft:
    """`draft` as it is stored: scope value as events carry it, thresholds ascending, those of 1 (always told) dropped.

    Raises `InvalidInput` with every field that is at fault. Whether the name is free is not asked here.
    """
    value, errors = _scope(workspace_id, draft)
    if draft.period not in BudgetPeriod.values:
        errors.append(FieldError("period", f"Must be one of: {', '.join(BudgetPeriod.values)}."))
    return _checked_terms(replace(draft, scope_value=value), errors)


def checked_change(old: BudgetDraft, draft: BudgetDraft) -> BudgetDraft:
    """`draft` as `checked` gives it, for a budget that says `old`: scope and period stay."""
    errors = [
        FieldError(field, "Cannot be changed; make another budget instead.")
        for field in _SCOPE_FIELDS
        if getattr(draft, field) != getattr(old, field)
    ]
    return _checked_terms(draft, errors)


def check_raise(old_usd: Decimal, limit_usd: Decimal, until: datetime, reason: str, now: datetime) -> str:
    """The reason, cleaned. Raises `InvalidInput` for a raise that is none, or that does not end soon enough."""
    errors = list(number_errors("limit_usd", limit_usd, MAX_LIMIT_USD, LIMIT_DECIMALS))
    if not errors and limit_usd <= old_usd:
        errors.append(FieldError("limit_usd", f"Must be above the limit of {old_usd.normalize():,f} USD."))
    if not now < until <= now + LONGEST_RAISE:
        errors.append(FieldError("until", f"Must lie ahead, at most {LONGEST_RAISE.days} days."))
    text = _cleaned("reason", reason, LONGEST_REASON, errors)
    _refuse(errors)
    return text


def check_adjustment(
    workspace_id: UUID, draft: BudgetDraft, usd: Decimal, reason: str, scope_value: str
) -> tuple[str, str]:
    """The reason and the scope value, cleaned. Raises `InvalidInput` for what cannot be added to such a budget."""
    errors = []
    # The order matters: NaN cannot be compared. Nor is anything calculated with a number that may have a huge exponent.
    if not usd.is_finite() or not usd or not -MAX_LIMIT_USD <= usd <= MAX_LIMIT_USD:
        errors.append(FieldError("usd", f"Must be a number other than 0, at most {MAX_LIMIT_USD:,} either way."))
    elif usd != round(usd, LIMIT_DECIMALS):
        errors.append(FieldError("usd", f"At most {LIMIT_DECIMALS} decimals."))
    value = ""
    if draft.is_each_value:
        try:
            value = cleaned_value(draft.scope_kind, scope_value)
            if draft.scope_kind == ScopeKind.API_KEY_ID:
                value = str(_key(workspace_id, value).pk)
        except ValueError as error:
            errors.append(FieldError("scope_value", str(error)))
    elif scope_value:
        errors.append(FieldError("scope_value", "Only for a budget on each value."))
    text = _cleaned("reason", reason, LONGEST_REASON, errors)
    _refuse(errors)
    return text, value


def number_errors(field: str, value: Decimal | None, maximum: Decimal, decimals: int) -> Iterator[FieldError]:
    """What is wrong with a number that must be above 0; None is fine."""
    if value is None:
        return
    # The order matters: NaN cannot be compared.
    if not value.is_finite() or not 0 < value <= maximum:
        yield FieldError(field, f"Must be a number above 0 and at most {maximum:,}.")
    elif value != round(value, decimals):
        yield FieldError(field, f"At most {decimals} decimals.")


def _checked_terms(draft: BudgetDraft, errors: list[FieldError]) -> BudgetDraft:
    name = _cleaned("name", draft.name, LONGEST_NAME, errors) if draft.name.strip() else ""
    errors += number_errors("limit_usd", draft.limit_usd, MAX_LIMIT_USD, LIMIT_DECIMALS)
    errors += _threshold_errors(draft)
    if draft.enforcement not in Enforcement.values:
        errors.append(FieldError("enforcement", f"Must be one of: {', '.join(Enforcement.values)}."))
    errors += _unpriced_errors(draft)
    _refuse(errors)
    return replace(
        draft,
        name=name,
        thresholds=tuple(sorted(share for share in draft.thresholds if share < OVER)),
        thresholds_usd=tuple(sorted(draft.thresholds_usd)),
    )


def _scope(workspace_id: UUID, draft: BudgetDraft) -> tuple[str, list[FieldError]]:
    """The scope value as events carry it, and what is wrong with the scope."""
    if not draft.scope_kind:
        message = "Must be a dimension of events; /v1/settings/budgets has the budgets of the whole workspace."
        return "", [FieldError("scope_kind", message)]
    if draft.scope_kind not in ScopeKind.values:
        return "", [FieldError("scope_kind", "Must be a dimension of events.")]
    if draft.is_each_value:
        errors = [FieldError("scope_value", "Leave it out: the budget holds for each value.")]
        return "", errors if draft.scope_value.strip() else []
    try:
        value = cleaned_value(draft.scope_kind, draft.scope_value)
        return _live_key(workspace_id, value) if draft.scope_kind == ScopeKind.API_KEY_ID else value, []
    except ValueError as error:
        return "", [FieldError("scope_value", str(error))]


def _live_key(workspace_id: UUID, text: str) -> str:
    """The id of a key that still sends, in its one spelling. Raises ValueError, with a sentence, for any other."""
    key = _key(workspace_id, text)
    if key.revoked_at is not None:
        raise ValueError("This API key is revoked: no more events come with it.")
    return str(key.pk)


def _key(workspace_id: UUID, text: str) -> ApiKey:
    """The workspace's key with that id. Raises ValueError, with a sentence, if it has none."""
    key = ApiKey.objects.filter(workspace_id=workspace_id, pk=int(text)).first()
    if key is None:
        raise ValueError("Must be the id of an API key of this workspace.")
    return key


def _threshold_errors(draft: BudgetDraft) -> Iterator[FieldError]:
    shares, amounts = draft.thresholds, draft.thresholds_usd
    bad_shares = [
        # In percent, as people write them.
        FieldError("thresholds", "A share must be above 0% and at most 100%, with at most 2 decimals.")
        for share in shares
        if any(number_errors("thresholds", share, OVER, THRESHOLD_DECIMALS))
    ]
    bad_amounts = [error for usd in amounts for error in _amount_errors(usd, draft.limit_usd)]
    # One line each: ten thresholds with the same fault are one fault.
    yield from bad_shares[:1]
    yield from bad_amounts[:1]
    if len([*shares, *amounts]) - shares.count(OVER) > MOST_THRESHOLDS:
        yield FieldError("thresholds", f"At most {MOST_THRESHOLDS} thresholds.")
    if not bad_shares and _has_twice(shares):
        yield FieldError("thresholds", "Name each threshold once.")
    if not bad_amounts and _has_twice(amounts):
        yield FieldError("thresholds_usd", "Name each threshold once.")


def _amount_errors(usd: Decimal, limit_usd: Decimal) -> Iterator[FieldError]:
    errors = list(number_errors("thresholds_usd", usd, MAX_LIMIT_USD, LIMIT_DECIMALS))
    yield from errors
    if not errors and limit_usd.is_finite() and usd >= limit_usd:
        yield FieldError("thresholds_usd", "Must be below the limit, which is always told.")


def _has_twice(values: Sequence[Decimal]) -> bool:
    return len(set(values)) != len(values)


def _unpriced_errors(draft: BudgetDraft) -> Iterator[FieldError]:
    price = draft.estimate_usd_per_1m
    if draft.unpriced not in UnpricedPolicy.values:
        yield FieldError("unpriced", f"Must be one of: {', '.join(UnpricedPolicy.values)}.")
    if draft.unpriced == UnpricedPolicy.BLOCK and draft.enforcement != Enforcement.HARD:
        yield FieldError("unpriced", "Only a hard stop can refuse requests without a price.")
    if draft.unpriced == UnpricedPolicy.ESTIMATE:
        if price is None:
            yield FieldError("estimate_usd_per_1m", "Say what 1M tokens without a price are taken to cost.")
        yield from number_errors("estimate_usd_per_1m", price, MAX_ESTIMATE_USD_PER_1M, ESTIMATE_DECIMALS)
    elif price is not None:
        yield FieldError("estimate_usd_per_1m", "Only for a budget that estimates requests without a price.")


def _cleaned(field: str, text: str, longest: int, errors: list[FieldError]) -> str:
    try:
        return clean_text(text, field, longest)
    except InvalidInput as error:
        errors += error.errors
        return ""


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)
