"""From bytes to a question about a call to come, with its estimate at the current prices.

Labels follow the rules of events, so that a question meets the same budgets as the event after it.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec

from ingest.gateway.asks import What
from ingest.gateway.ledger import Ask
from ingest.gateway.payload import (
    DATA_MODES,
    ENVIRONMENTS,
    SERVICE_TIERS,
    InvalidPayloadError,
    Name100,
    Name200,
    Tokens,
    choice,
    decode,
    label,
    required,
    usd,
)
from ingest.limit_sets import ZERO
from ingest.pricing import current_book
from opsmeter_site.lib.errors import FieldError

LONGEST_LEASE_SECONDS = 3_600
DEFAULT_LEASE_SECONDS = 120

_INPUT, _OUTPUT, _CACHED = "estimatedInputTokens", "estimatedOutputTokens", "estimatedCachedInputTokens"


class AskPayload(msgspec.Struct, rename="camel", forbid_unknown_fields=False, kw_only=True):
    """A question as it stands on the wire; which fields it needs depends on what is asked."""

    external_request_id: Name200 | None = None
    provider: Name100 | None = None
    model: Name200 | None = None
    endpoint_tag: Name200 | None = None
    prompt_version: Name200 | None = None
    tenant_id: Name200 | None = None
    user_id: Name200 | None = None
    environment: str | None = None
    data_mode: str | None = None
    service_tier: str | None = None
    estimated_cost_usd: Decimal | None = None
    estimated_input_tokens: Tokens | None = None
    estimated_output_tokens: Tokens | None = None
    estimated_cached_input_tokens: Tokens | None = None
    lease_seconds: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_LEASE_SECONDS)] | None = None


class Estimate(msgspec.Struct, gc=False, frozen=True):
    """What a call may cost, as the client says it: USD if it gave them, else tokens; cached ones are not in `input`."""

    usd: Decimal | None = None
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens together."""
        return self.input_tokens + self.cached_tokens + self.output_tokens


class Question(msgspec.Struct, kw_only=True, gc=False):
    """One valid question, before its price. Without `estimate` it asks whether anything may be spent at all."""

    what: What
    external_request_id: str
    provider: str
    model: str
    endpoint_tag: str
    prompt_version: str
    environment: str
    data_mode: str
    service_tier: str
    user_id: str
    tenant_id: str
    seconds: int
    names_model: bool
    estimate: Estimate | None
    warnings: list[str] = []

    def ask(self, workspace_id: UUID, api_key_id: int, now: datetime) -> Ask:
        """The question with its estimate at the prices of `now` (aware UTC), for the ledger of `workspace_id`.

        Raises `django.db.DatabaseError` if there has never been a price book.
        """
        estimate = self.estimate or Estimate()
        cost = self._cost(estimate, workspace_id, now)
        # An amount that the client names is held as it is; its event will have no price, and budgets may block that.
        is_unpriced = cost is None and (self.names_model or estimate.tokens > 0)
        if is_unpriced and self.estimate is not None:
            held = "" if estimate.usd is not None else " It counts as nothing, but for budgets that assume a price."
            self.warnings.append(f"No price is known for {self.provider}/{self.model}.{held}")
        if estimate.usd is not None:
            cost = estimate.usd
        return Ask(
            what=self.what,
            external_request_id=self.external_request_id,
            api_key_id=api_key_id,
            provider=self.provider,
            model=self.model,
            endpoint_tag=self.endpoint_tag,
            prompt_version=self.prompt_version,
            environment=self.environment,
            data_mode=self.data_mode,
            user_id=self.user_id,
            tenant_id=self.tenant_id,
            usd=cost or ZERO,
            unpriced_tokens=estimate.tokens if cost is None else 0,
            is_unpriced=is_unpriced,
            seconds=self.seconds,
        )

    def _cost(self, estimate: Estimate, workspace_id: UUID, now: datetime) -> Decimal | None:
        return (
            current_book()
            .quote(
                workspace_id=workspace_id,
                provider=self.provider,
                model=self.model,
                service_tier=self.service_tier,
                occurred_at=now,
                uncached_input_tokens=estimate.input_tokens,
                cache_read_tokens=estimate.cached_tokens,
                cache_write_tokens=0,
                output_tokens=estimate.output_tokens,
            )
            .cost_usd
        )


def check_question(raw: bytes, what: What) -> Question:
    """Decode and check a question. `raw` is one JSON object in UTF-8.

    Raises `InvalidPayloadError` with every field that is at fault.
    """
    payload = decode(raw, AskPayload)
    errors: list[FieldError] = []
    question = _build(payload, what, errors)
    if errors:
        raise InvalidPayloadError("invalid_payload", errors)
    return question


def _build(payload: AskPayload, what: What, errors: list[FieldError]) -> Question:
    is_lease = what == What.LEASE
    provider, model = payload.provider, payload.model
    return Question(
        what=what,
        # A check holds nothing, so it is about no call in particular.
        external_request_id=""
        if what == What.CHECK
        else required("externalRequestId", payload.external_request_id or "", errors),
        provider=(required("provider", provider or "", errors) if is_lease else label(provider)).lower(),
        model=required("model", model or "", errors) if is_lease else label(model),
        endpoint_tag=label(payload.endpoint_tag),
        prompt_version=label(payload.prompt_version),
        environment=choice("environment", payload.environment, ENVIRONMENTS, errors),
        data_mode=choice("dataMode", payload.data_mode, DATA_MODES, errors),
        service_tier=choice("serviceTier", payload.service_tier, SERVICE_TIERS, errors),
        user_id=label(payload.user_id),
        tenant_id=label(payload.tenant_id),
        seconds=payload.lease_seconds or DEFAULT_LEASE_SECONDS,
        names_model=bool(model and model.strip()),
        estimate=None if what == What.RELEASE else _estimate(payload, errors, is_needed=is_lease),
    )


def _estimate(payload: AskPayload, errors: list[FieldError], *, is_needed: bool) -> Estimate | None:
    if payload.estimated_cost_usd is not None:
        return Estimate(usd=usd("estimatedCostUsd", payload.estimated_cost_usd, errors))
    used, written, cached = (
        payload.estimated_input_tokens,
        payload.estimated_output_tokens,
        payload.estimated_cached_input_tokens,
    )
    if used is None and written is None and cached is None:
        if is_needed:
            message = f"Say what the call may cost: this, or {_INPUT} and {_OUTPUT}."
            errors.append(FieldError("estimatedCostUsd", message))
        return None
    errors += [
        FieldError(name, "Required, unless you send estimatedCostUsd.")
        for name, tokens in ((_INPUT, used), (_OUTPUT, written))
        if tokens is None
    ]
    used, written, cached = used or 0, written or 0, cached or 0
    if cached > used and payload.estimated_input_tokens is not None:
        errors.append(FieldError(_CACHED, f"Part of {_INPUT}, so it cannot be larger."))
    return Estimate(input_tokens=max(used - cached, 0), cached_tokens=cached, output_tokens=written)
