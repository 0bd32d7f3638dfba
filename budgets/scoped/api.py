"""`/v1/budgets`: every budget of a workspace, where it stands, and what can be done to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, cast
from uuid import UUID

from django.db.models import Q, QuerySet
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.limit_specs import SOURCE
from budgets.models import Budget
from budgets.scoped import examples
from budgets.scoped import serializers as shapes
from budgets.scoped.answers import adjustment_json, budget_json, entry_json, lease_json, replay_json
from budgets.scoped.checks import checked
from budgets.scoped.drafts import draft_of
from budgets.scoped.replays import replay_budget
from budgets.scoped.selectors import live_holds, standings
from budgets.scoped.services import (
    adjust_budget,
    change_budget,
    create_budget,
    delete_budget,
    end_raise,
    history,
    raise_budget,
)
from ingest.models import Lease, LimitAdjustment
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.cursors import Cursor
from opsmeter_site.lib.errors import Conflict, FieldError, InvalidInput, NotFound
from opsmeter_site.lib.openapi import RETRY_AFTER, ErrorSerializer, error_answers
from opsmeter_site.lib.wire import WireView, json_body
from workspaces.authentication import (
    ApiKeyAuthentication,
    BearerAuthentication,
    CanRead,
    CanWrite,
    KeyAccess,
    TokenAccess,
)
from workspaces.models import User, Workspace

MOST_ROWS = 200
USUAL_ROWS = 50
_LONGEST_VALUE = 200

_NO_STORE = {"Cache-Control": "no-store"}
_TAGS = ["Budgets"]
_READING = error_answers(401, 403, 404, 406, 503)
_CHANGING = error_answers(400, 401, 403, 404, 406, 413, 415, 503)
_LISTING = error_answers(400, 401, 403, 404, 406, 503)
_CONFLICT = OpenApiResponse(
    ErrorSerializer,
    description=(
        "`conflict`: another budget has this name, or it is one of the whole workspace, which are set under "
        "/v1/settings/budgets. Nothing was changed."
    ),
    examples=[
        OpenApiExample(
            "conflict",
            value={
                "ok": False,
                "reason": "conflict",
                "message": "Another budget of this workspace has this name.",
                "errors": [{"field": "name", "message": "Another budget of this workspace has this name."}],
            },
            response_only=True,
            status_codes=["409"],
        )
    ],
)
_PAGE = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
        default=USUAL_ROWS,
        description="How many at most.",
    ),
    OpenApiParameter("cursor", description="`nextCursor` of the page before."),
]


def _example(value: dict[str, Any], status: int) -> OpenApiExample:
    return OpenApiExample("answer", value=value, response_only=True, status_codes=[str(status)])


def _asked(value: dict[str, Any], name: str = "request") -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


class _BudgetView(WireView):
    """Every member and every key reads; owners and admins change."""

    authentication_classes = (BearerAuthentication, ApiKeyAuthentication)
    changing: ClassVar[frozenset[str]] = frozenset({"POST", "PATCH", "DELETE"})

    def get_permissions(self) -> list[BasePermission]:
        """Unknown methods ask for what reading does, then get their 405."""
        served = {name.upper() for name in self.http_method_names}
        return [CanWrite()] if self.request.method in self.changing & served else [CanRead()]


class BudgetsView(_BudgetView):
    """All budgets."""

    http_method_names: ClassVar[list[str]] = ["get", "head", "post"]  # type: ignore[misc]

    @extend_schema(
        operation_id="listBudgets",
        tags=_TAGS,
        summary="List budgets, and where they stand",
        description="The newest first, the two of the whole workspace among them.",
        parameters=[
            OpenApiParameter("scope", enum=shapes.ALL_SCOPES, description="Only those set on this dimension."),
            OpenApiParameter("scopeValue", description="Only those set on exactly this value."),
            OpenApiParameter("period", enum=list(shapes.PERIODS)),
            *_PAGE,
            RETRY_AFTER,
        ],
        responses={200: shapes.BudgetListSerializer, **_LISTING},
        examples=[_example(examples.BUDGETS, 200)],
    )
    def get(self, request: Request) -> Response:
        """One page."""
        now = utc_now()
        limit, cursor = _page(request)
        found = Budget.objects.filter(_filter(request), workspace=_workspace(request))
        rows = found.filter(cursor.beyond("created_at")) if cursor else found
        page = list(rows.order_by("-created_at", "-pk")[: limit + 1])
        shown = standings(_workspace(request).pk, page[:limit], now)
        last = page[limit - 1] if len(page) > limit else None
        body = {
            "budgets": [budget_json(standing, now) for standing in shown],
            "count": found.count(),
            "nextCursor": Cursor(last.created_at, last.pk).encode() if last else None,
        }
        return _answer(shapes.BudgetListSerializer, body)

    @extend_schema(
        operation_id="createBudget",
        tags=_TAGS,
        summary="Create a budget on one scope",
        description=(
            "It holds from the next event on and counts what the running period has already spent. All budgets that "
            "match an event apply. A workspace has at most 1,000. Unknown fields are refused."
        ),
        request=shapes.BudgetWishSerializer,
        parameters=[
            OpenApiParameter("Location", location=OpenApiParameter.HEADER, response=[201], required=True),
            RETRY_AFTER,
        ],
        responses={201: shapes.BudgetSerializer, **_CHANGING, 409: _CONFLICT},
        examples=[
            _asked(examples.WISH, "one tenant"),
            _asked(examples.EACH_WISH, "each user"),
            _example(examples.BUDGET, 201),
        ],
    )
    def post(self, request: Request) -> Response:
        """Create one."""
        draft = shapes.drafted(_wish(shapes.BudgetWishSerializer, request))
        with _wire_names():
            budget = create_budget(_workspace(request), draft, acting_user=_person(request))
        answer = _one(budget, status=201)
        answer["Location"] = reverse("api-budget", args=[budget.pk])
        return answer


class BudgetView(_BudgetView):
    """One budget."""

    http_method_names: ClassVar[list[str]] = ["get", "head", "patch", "delete"]  # type: ignore[misc]

    @extend_schema(
        operation_id="getBudget",
        tags=_TAGS,
        summary="Read a budget, and where it stands",
        parameters=[RETRY_AFTER],
        responses={200: shapes.BudgetSerializer, **_READING},
        examples=[_example(examples.BUDGET, 200)],
    )
    def get(self, request: Request, budget_id: UUID) -> Response:
        """As it is."""
        return _one(_budget(request, budget_id))

    @extend_schema(
        operation_id="changeBudget",
        tags=_TAGS,
        summary="Change a budget",
        description=(
            "Only what is named changes; scope and period cannot. Of the two budgets of the whole workspace only "
            "`unpriced` and `estimateUsdPer1MTokens` are changed here. Unknown fields are refused."
        ),
        request=shapes.BudgetWishSerializer,
        parameters=[RETRY_AFTER],
        responses={200: shapes.BudgetSerializer, **_CHANGING, 409: _CONFLICT},
        examples=[_asked({"limitUsd": 60}), _example(examples.BUDGET, 200)],
    )
    def patch(self, request: Request, budget_id: UUID) -> Response:
        """Change what is named."""
        budget = _budget(request, budget_id)
        wish = _wish(shapes.BudgetWishSerializer, request, partial=True)
        with _wire_names():
            changed = change_budget(budget, shapes.drafted(wish, draft_of(budget)), acting_user=_person(request))
        return _one(changed)

    @extend_schema(
        operation_id="deleteBudget",
        tags=_TAGS,
        summary="Delete a budget",
        description="Leases in its scope go on until their events arrive or their time is up.",
        request=None,
        parameters=[RETRY_AFTER],
        responses={200: shapes.DeletedBudgetSerializer, **_READING, 409: _CONFLICT},
        examples=[_example(examples.DELETED, 200)],
    )
    def delete(self, request: Request, budget_id: UUID) -> Response:
        """Delete it."""
        budget = _budget(request, budget_id)
        held = live_holds(budget, utc_now())
        delete_budget(budget, acting_user=_person(request))
        return _answer(shapes.DeletedBudgetSerializer, {"ok": True, "liveLeases": held.count, "heldUsd": held.usd})


class RaiseView(_BudgetView):
    """A limit for some time."""

    http_method_names: ClassVar[list[str]] = ["post", "delete"]  # type: ignore[misc]

    @extend_schema(
        operation_id="raiseBudget",
        tags=_TAGS,
        summary="Raise a budget's limit for some time",
        description="The raise ends by the clock. A second one replaces the first. Unknown fields are refused.",
        request=shapes.RaiseWishSerializer,
        parameters=[RETRY_AFTER],
        responses={200: shapes.BudgetSerializer, **_CHANGING},
        examples=[_asked(examples.RAISE_WISH), _example(examples.BUDGET, 200)],
    )
    def post(self, request: Request, budget_id: UUID) -> Response:
        """Raise it."""
        budget = _budget(request, budget_id)
        wish = _wish(shapes.RaiseWishSerializer, request)
        with _wire_names():
            return _one(raise_budget(budget, **wish, acting_user=_person(request)))

    @extend_schema(
        operation_id="endRaise",
        tags=_TAGS,
        summary="End a raise before its time",
        description="Nothing happens if none holds.",
        request=None,
        parameters=[RETRY_AFTER],
        responses={200: shapes.BudgetSerializer, **_READING},
        examples=[_example({**examples.BUDGET, "raise": None}, 200)],
    )
    def delete(self, request: Request, budget_id: UUID) -> Response:
        """End it."""
        return _one(end_raise(_budget(request, budget_id), acting_user=_person(request)))


class AdjustmentsView(_BudgetView):
    """What was added to a budget's spend by hand."""

    http_method_names: ClassVar[list[str]] = ["get", "head", "post"]  # type: ignore[misc]

    @extend_schema(
        operation_id="listAdjustments",
        tags=_TAGS,
        summary="List a budget's adjustments",
        description=f"The newest first, of all periods; at most {MOST_ROWS}.",
        parameters=[RETRY_AFTER],
        responses={200: shapes.AdjustmentListSerializer, **_READING},
        examples=[_example(examples.ADJUSTMENTS, 200)],
    )
    def get(self, request: Request, budget_id: UUID) -> Response:
        """All of them."""
        budget = _budget(request, budget_id)
        found = LimitAdjustment.objects.filter(
            limit__workspace=budget.workspace_id, limit__source=SOURCE, limit__source_id=str(budget.pk)
        )
        rows = found.select_related("created_by").order_by("-pk")[:MOST_ROWS]
        body = {"adjustments": [adjustment_json(row) for row in rows], "count": found.count()}
        return _answer(shapes.AdjustmentListSerializer, body)

    @extend_schema(
        operation_id="adjustBudget",
        tags=_TAGS,
        summary="Adjust what a budget counts in its running period",
        description=(
            "Added to what the events cost, or taken off; the events stay as they are. Unknown fields are refused."
        ),
        request=shapes.AdjustmentWishSerializer,
        parameters=[RETRY_AFTER],
        responses={201: shapes.AdjustmentSerializer, **_CHANGING},
        examples=[_asked(examples.ADJUSTMENT_WISH), _example(examples.ADJUSTMENT, 201)],
    )
    def post(self, request: Request, budget_id: UUID) -> Response:
        """Adjust it."""
        budget = _budget(request, budget_id)
        wish = _wish(shapes.AdjustmentWishSerializer, request)
        with _wire_names():
            row = adjust_budget(
                budget,
                wish["usd"],
                wish["reason"],
                acting_user=_person(request),
                scope_value=wish.get("scope_value") or "",
            )
        return _answer(shapes.AdjustmentSerializer, adjustment_json(row), status=201)


class HistoryView(_BudgetView):
    """What was done to a budget."""

    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    @extend_schema(
        operation_id="getBudgetHistory",
        tags=_TAGS,
        summary="What was done to a budget, and by whom",
        description=f"The newest first, at most {MOST_ROWS}. Answers for deleted budgets, too.",
        parameters=[RETRY_AFTER],
        responses={200: shapes.HistorySerializer, **_READING},
        examples=[_example(examples.HISTORY, 200)],
    )
    def get(self, request: Request, budget_id: UUID) -> Response:
        """All of it."""
        entries = history(budget_id, _workspace(request).pk)
        if not entries:
            # Budgets that are older than their history have none.
            _budget(request, budget_id)
        body = {"entries": [entry_json(entry) for entry in entries[:MOST_ROWS]], "count": len(entries)}
        return _answer(shapes.HistorySerializer, body)


class SimulateView(_BudgetView):
    """What a budget would have done."""

    changing: ClassVar[frozenset[str]] = frozenset()
    http_method_names: ClassVar[list[str]] = ["post"]  # type: ignore[misc]

    @extend_schema(
        operation_id="simulateBudget",
        tags=_TAGS,
        summary="Replay stored events against a budget",
        description=(
            "What the budget would have refused and told in the last days, event by event. Nothing is stored, so every "
            "credential that reads may ask. Unknown fields are refused."
        ),
        request=shapes.SimulationWishSerializer,
        parameters=[RETRY_AFTER],
        responses={200: shapes.SimulationSerializer, **_CHANGING},
        examples=[_asked({**examples.WISH, "days": 30}), _example(examples.SIMULATION, 200)],
    )
    def post(self, request: Request) -> Response:
        """Replay them."""
        wish = _wish(shapes.SimulationWishSerializer, request)
        workspace_id = _workspace(request).pk
        with _wire_names():
            draft = checked(workspace_id, shapes.drafted(wish))
        replay = replay_budget(workspace_id, draft, utc_now(), wish["days"])
        return _answer(shapes.SimulationSerializer, replay_json(replay))


class LeasesView(_BudgetView):
    """Live leases. The gateway takes POST on this path."""

    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    @extend_schema(
        operation_id="listLeases",
        tags=["Leases"],
        summary="List live leases",
        description="The newest first: those that are neither settled, released nor expired.",
        parameters=[*_PAGE, RETRY_AFTER],
        responses={200: shapes.LeaseListSerializer, **_LISTING},
        examples=[_example(examples.LEASES, 200)],
    )
    def get(self, request: Request) -> Response:
        """One page."""
        limit, cursor = _page(request)
        found = Lease.objects.filter(workspace=_workspace(request), closed_at=None, expires_at__gt=utc_now())
        rows = _leases_beyond(found, cursor) if cursor else found
        page = list(rows.order_by("-created_at", "-pk")[: limit + 1])
        last = page[limit - 1] if len(page) > limit else None
        body = {
            "leases": [lease_json(lease) for lease in page[:limit]],
            "count": found.count(),
            "nextCursor": Cursor(last.created_at, UUID(int=last.pk)).encode() if last else None,
        }
        return _answer(shapes.LeaseListSerializer, body)


def _workspace(request: Request) -> Workspace:
    return cast("TokenAccess | KeyAccess", request.auth).workspace


def _person(request: Request) -> User:
    return cast("User", request.user)


def _budget(request: Request, budget_id: UUID) -> Budget:
    budget = Budget.objects.filter(workspace=_workspace(request), pk=budget_id).first()
    if budget is None:
        raise NotFound("There is no such budget.")
    return budget


def _wish(shape: type[serializers.Serializer[Any]], request: Request, *, partial: bool = False) -> dict[str, Any]:
    serializer = shape(data=json_body(request), partial=partial)
    serializer.is_valid(raise_exception=True)
    return cast("dict[str, Any]", serializer.validated_data)


def _one(budget: Budget, *, status: int = 200) -> Response:
    now = utc_now()
    (standing,) = standings(budget.workspace_id, [budget], now)
    return _answer(shapes.BudgetSerializer, budget_json(standing, now), status=status)


def _answer(shape: type[serializers.Serializer[Any]], body: Any, *, status: int = 200) -> Response:
    return Response(shape(body).data, status=status, headers=_NO_STORE)


def _filter(request: Request) -> Q:
    """The budgets that the parameters name."""
    wanted = Q()
    if scope := _choice(request, "scope", shapes.ALL_SCOPES):
        wanted &= Q(scope_kind=shapes.SCOPES.get(scope, ""))
    if period := _choice(request, "period", list(shapes.PERIODS)):
        wanted &= Q(period=shapes.PERIODS[period])
    if value := request.query_params.get("scopeValue", ""):
        if len(value) > _LONGEST_VALUE or "\x00" in value:
            raise _refusal("scopeValue", f"At most {_LONGEST_VALUE} characters, and no NUL.")
        wanted &= Q(scope_value=value)
    return wanted


def _choice(request: Request, name: str, choices: list[str]) -> str:
    value = request.query_params.get(name, "")
    if value and value not in choices:
        raise _refusal(name, f"Must be one of: {', '.join(choices)}.")
    return value


def _page(request: Request) -> tuple[int, Cursor | None]:
    """How many rows, and after which."""
    text = request.query_params.get("limit", str(USUAL_ROWS))
    # Digits only, few enough to be read as a number at all.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST_ROWS)) else 0
    if not 1 <= limit <= MOST_ROWS:
        raise _refusal("limit", f"Must be a whole number from 1 to {MOST_ROWS}.")
    place = request.query_params.get("cursor", "")
    cursor = Cursor.decode(place) if place else None
    if place and cursor is None:
        raise _refusal("cursor", "Must be the nextCursor of an answer.")
    # Pages go one way: towards older rows.
    return limit, replace(cursor, is_newer=False) if cursor else None


def _leases_beyond(leases: QuerySet[Lease], cursor: Cursor) -> QuerySet[Lease]:
    """Leases have numbers where a cursor has an id."""
    return leases.filter(
        Q(created_at__lt=cursor.moment) | Q(created_at=cursor.moment, pk__lt=cursor.pk.int),
        created_at__lte=cursor.moment,
    )


def _refusal(field: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field, message)])


@contextmanager
def _wire_names() -> Iterator[None]:
    """Refusals of the services with the fields as the client wrote them."""
    try:
        yield
    except InvalidInput as error:
        errors = _renamed(error.errors)
        raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors) from error
    except Conflict as error:
        raise Conflict(error.message, errors=_renamed(error.errors)) from error


def _renamed(errors: list[FieldError]) -> list[FieldError]:
    return [FieldError(shapes.FIELD_NAMES.get(error.field, error.field), error.message) for error in errors]
