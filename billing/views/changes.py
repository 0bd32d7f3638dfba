"""The second question before anything is asked of the provider: what changes, from what to what, and what is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from billing import changes
from billing.models import Interval, Plan, PlanVariant, Status
from billing.obstacles import obstacle_to_cancel, obstacle_to_change, obstacle_to_checkout, obstacle_to_resume
from billing.plan_table import change_label, held
from billing.plan_words import Difference, Usage, differences, losses
from billing.providers import BillingOff
from billing.providers.base import ProviderError
from billing.selectors import Standing, standing
from billing.usage import plan_usage
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, OpsmeterError
from workspaces.access import WorkspaceAccess
from workspaces.models import Role
from workspaces.pages import workspace_page

_UNCHANGED = "Nothing was changed."
# What stands in the way of another plan, and where it can be cleared away.
_WAYS_OUT = {
    "too_many_members": "members",
    "payment_past_due": "payment-method",
    "subscription_cancelled": "resume",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked before it is done. With an `obstacle` it is not asked."""

    kind: str
    title: str
    button: str
    stands: Standing
    facts: Sequence[Difference]
    losses: Sequence[str]
    obstacle: str = ""
    way_out: str = ""
    """Where the obstacle can be cleared away: `members`, `payment-method` or `resume`."""
    is_danger: bool = False
    plan: Plan | None = None
    rises: bool = False


@workspace_page(Role.ADMIN)
@never_cache
@require_http_methods(["GET", "POST"])
def checkout_page(request: HttpRequest, access: WorkspaceAccess, plan: str, interval: str) -> HttpResponse:
    """A first subscription; POST leads to the provider's checkout."""
    wanted = _known(plan, interval)
    stands = standing(access.workspace.pk, utc_now())
    refusal = obstacle_to_checkout(stands)
    question = Question(
        kind="checkout",
        title=f"Subscribe to {wanted.name}?",
        button="Go to the checkout",
        stands=stands,
        facts=_facts(stands, wanted, interval),
        losses=(),
        obstacle=_obstacle(stands, refusal.message if refusal else "", wanted, interval),
        plan=wanted,
        rises=True,
    )
    if request.method == "GET":
        return _ask(request, question)
    back = request.build_absolute_uri(reverse("settings-billing", args=[access.workspace.slug]))
    try:
        started = changes.start_checkout(
            access.workspace, plan_tier=plan, interval=interval, acting_user=access.user, return_url=back
        )
    except OpsmeterError as error:
        return _refuse(request, question, error)
    return _leave(request, started.url)


@workspace_page(Role.ADMIN)
@never_cache
@require_http_methods(["GET", "POST"])
def change_page(request: HttpRequest, access: WorkspaceAccess, plan: str, interval: str) -> HttpResponse:
    """Another plan or interval for the subscription."""
    wanted = _known(plan, interval)
    stands = standing(access.workspace.pk, utc_now())
    refusal = obstacle_to_change(stands, wanted, interval)
    on_now = stands.subscription.plan if stands.subscription else None
    label = _change_words(on_now, wanted, interval)
    question = Question(
        kind="change",
        title=f"{label}?",
        button=label,
        stands=stands,
        facts=_facts(stands, wanted, interval),
        losses=_losses(access, stands, _plan_after(stands, wanted)),
        obstacle=_obstacle(stands, refusal.message if refusal else "", wanted, interval),
        way_out=_WAYS_OUT.get(refusal.reason, "") if refusal else "",
        is_danger=on_now is not None and wanted.rank < on_now.rank,
        plan=wanted,
        rises=on_now is None or wanted.rank > on_now.rank,
    )

    def act() -> None:
        changes.request_plan(access.workspace, plan_tier=plan, interval=interval, acting_user=access.user)

    return _answer(request, access, question, act)


@workspace_page(Role.ADMIN)
@never_cache
@require_http_methods(["GET", "POST"])
def cancel_page(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The end of the subscription, with its paid period."""
    stands = standing(access.workspace.pk, utc_now())
    refusal = obstacle_to_cancel(stands)
    question = Question(
        kind="cancel",
        title="Cancel the subscription?",
        button="Cancel the subscription",
        stands=stands,
        facts=differences(held(stands, stands.plan), held(stands, stands.granted)),
        losses=_losses(access, stands, stands.granted),
        obstacle=_obstacle(stands, refusal.message if refusal else ""),
        is_danger=True,
        plan=stands.granted,
    )
    return _answer(request, access, question, lambda: changes.request_cancel(access.workspace, acting_user=access.user))


@workspace_page(Role.ADMIN)
@never_cache
@require_http_methods(["GET", "POST"])
def resume_page(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The cancellation taken back."""
    stands = standing(access.workspace.pk, utc_now())
    refusal = obstacle_to_resume(stands)
    question = Question(
        kind="resume",
        title="Resume the subscription?",
        button="Resume the subscription",
        stands=stands,
        facts=(),
        losses=(),
        obstacle=_obstacle(stands, refusal.message if refusal else ""),
        plan=stands.subscription.plan if stands.subscription else None,
    )
    return _answer(request, access, question, lambda: changes.request_resume(access.workspace, acting_user=access.user))


# --- Asking, and what comes of it -------------------------------------------------------------------------------------


def _answer(
    request: HttpRequest, access: WorkspaceAccess, question: Question, act: Callable[[], object]
) -> HttpResponse:
    if request.method == "GET":
        return _ask(request, question)
    try:
        act()
    except OpsmeterError as error:
        return _refuse(request, question, error)
    return redirect("settings-billing", access.workspace.slug)


def _ask(request: HttpRequest, question: Question, problem: str = "", status: int = 200) -> HttpResponse:
    context = {"question": question, "problem": problem, "Status": Status}
    return render(request, "billing/confirm.html", context, status=status)


def _refuse(request: HttpRequest, question: Question, error: OpsmeterError) -> HttpResponse:
    status = 409 if isinstance(error, InvalidInput) else error.status
    text = " ".join(dict.fromkeys([error.message, *(each.message for each in error.errors)])).strip()
    if isinstance(error, ProviderError) and _UNCHANGED not in text:
        text = f"{text} {_UNCHANGED}"
    response = _ask(request, question, text, status)
    for name, value in error.headers.items():
        response[name] = value
    return response


def _leave(request: HttpRequest, url: str) -> HttpResponse:
    """To the provider by way of a page: browsers do not let our forms be redirected to other hosts."""
    response = render(request, "billing/leaving.html", {"url": url})
    response["Refresh"] = f"0; url={url}"
    return response


# --- What is asked ----------------------------------------------------------------------------------------------------


def _known(tier: str, interval: str) -> Plan:
    plan = Plan.objects.filter(tier=tier).first()
    if plan is None or interval not in Interval.values:
        raise Http404("There is no such plan.")
    return plan


def _change_words(on_now: Plan | None, wanted: Plan, interval: str) -> str:
    if on_now is not None and on_now.pk == wanted.pk:
        return f"Renew {wanted.name} {Interval(interval).label.lower()}"
    return "".join(change_label(on_now, wanted, interval))


def _variant(plan: Plan | None, interval: str) -> PlanVariant | None:
    return PlanVariant.objects.filter(plan=plan, interval=interval, is_offered=True).first()


def _obstacle(stands: Standing, refusal: str, wanted: Plan | None = None, interval: str = "") -> str:
    if not stands.is_billing_on:
        return str(BillingOff("The people who run this installation change plans."))
    if refusal or wanted is None or _variant(wanted, interval) is not None:
        return refusal
    return (
        f"{wanted.name} is not sold {Interval(interval).label.lower()} here: ask the people who run this installation."
    )


def _plan_after(stands: Standing, wanted: Plan) -> Plan:
    """What applies then: what was granted stays."""
    return max(stands.granted, wanted, key=lambda plan: plan.rank)


def _facts(stands: Standing, wanted: Plan, interval: str) -> list[Difference]:
    subscription = stands.subscription if stands.is_subscribed else None
    rows = [
        Difference("Subscription", _named(subscription.plan, subscription.interval), _named(wanted, interval))
        if subscription
        else Difference("Subscription", "none", _named(wanted, interval))
    ]
    old = _variant(subscription.plan, subscription.interval) if subscription else None
    new = _variant(wanted, interval)
    if new is not None and new.price_text:
        rows.append(Difference("Price as shown", old.price_text if old and old.price_text else "–", new.price_text))
    return rows + differences(held(stands, stands.plan), held(stands, _plan_after(stands, wanted)))


def _named(plan: Plan | None, interval: str) -> str:
    name = plan.name if plan else "unknown plan"
    return f"{name}, {Interval(interval).label.lower()}" if interval in Interval.values else name


def _losses(access: WorkspaceAccess, stands: Standing, after: Plan) -> list[str]:
    usage = plan_usage(access.workspace, utc_now())
    return losses(held(stands, stands.plan), held(stands, after), Usage(usage.requests, stands.people))
