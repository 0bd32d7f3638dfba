"""Asking the provider about what is in doubt, and once a day about everything.

A message that never came, a request that was never confirmed, a purchase that nobody told us of: all are found here.
"""

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from time import monotonic

import redis
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q

from billing.checking import NOT_OURS, ask, check_subscription, keep, tell_operators
from billing.models import ChangeRequest, ChangeState, Checkout, Subscription
from billing.providers import is_billing_on, provider
from billing.providers.base import ProviderError, SubscriptionFacts
from billing.selectors import OVERDUE
from billing.subscriptions import UNSURE_FOR, locked_subscription
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.redis import client
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

# Whatever goes wrong with one subscription, the others have their turn.
_TROUBLE_PAUSE = timedelta(hours=1)
# Purchases are looked for from the buyer's return on, or when they are `OVERDUE`, until this age.
_CHECKOUT_FORGOTTEN_AFTER = timedelta(hours=24)
_SHORTEST_PAUSE = timedelta(minutes=1)

# One sweep a process is enough; a second task that comes meanwhile has nothing to do.
_sweeping = threading.Lock()


def reconcile_due(seconds: float) -> int:
    """Ask about what is due until nothing is left or `seconds` are over; how many subscriptions were brought in.

    Ends early when the provider is away or calls are scarce. Raises what the database raises when it is away.
    """
    if not is_billing_on() or not _sweeping.acquire(blocking=False):
        return 0
    try:
        until = monotonic() + seconds
        done = 0
        while monotonic() < until and _check_next():
            done += 1
        for checkout in _silent_checkouts(utc_now()):
            if monotonic() >= until:
                break
            done += _is_their_turn(checkout, utc_now()) and _look_for_purchase(checkout)
        return done
    except ProviderError as error:
        logger.warning("billing_not_reconciled", error=type(error).__name__)
        return done
    finally:
        _sweeping.release()


# --- Subscriptions ----------------------------------------------------------------------------------------------------


def _check_next() -> bool:
    """Check the subscription that is most overdue and that nobody else is at; False if there is none."""
    now = utc_now()
    due = Subscription.objects.filter(next_check_at__lte=now).order_by("next_check_at")
    found, away = None, None
    try:
        with transaction.atomic():
            found = due.select_for_update(skip_locked=True, no_key=True).first()
            if found is None:
                return False
            try:
                check_subscription(found, now, urgent=False, with_invoices=True)
                _lapse(found, now)
            except ProviderError as error:
                away = error  # raised below: when to ask again must stay
            _never_at_once(found, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        if found is None:
            raise
        logger.error("billing_subscription_not_checked", subscription=str(found.pk), error=type(error).__name__)
        _never_at_once(found, now)
    if away is not None:
        raise away
    return True


def _never_at_once(subscription: Subscription, now: datetime) -> None:
    """Whatever came of a check, the next one is later: one subscription must not keep the others waiting."""
    still_due = Subscription.objects.filter(pk=subscription.pk, next_check_at__lte=now)
    still_due.update(next_check_at=now + _TROUBLE_PAUSE)


def _lapse(subscription: Subscription, now: datetime) -> None:
    """Give up requests that the provider's answer still does not show. A message that comes later counts all the same.

    What was sent a moment ago may still be under way there, so it has its time.
    """
    is_overdue = Q(requested_at__lte=now - OVERDUE) | Q(is_unsure=True, requested_at__lte=now - UNSURE_FOR)
    for wish in ChangeRequest.objects.filter(is_overdue, subscription=subscription, state=ChangeState.PENDING):
        wish.state, wish.resolved_at = ChangeState.LAPSED, now
        wish.note = "The payment provider was asked, and it has not made this change. Nothing was changed; try again."
        wish.save(update_fields=["state", "resolved_at", "note"])
        record_audit(
            "subscription.change_lapsed",
            acting_user=None,
            workspace=subscription.workspace,
            target=subscription,
            data={"kind": wish.kind, "request": str(wish.pk)},
        )


# --- Checkouts --------------------------------------------------------------------------------------------------------


def _silent_checkouts(now: datetime) -> Iterable[Checkout]:
    """Those of which something may have come that nobody told us."""
    open_ones = Checkout.objects.filter(subscription=None, created_at__gt=now - _CHECKOUT_FORGOTTEN_AFTER)
    silent = open_ones.filter(Q(returned_at__isnull=False) | Q(created_at__lt=now - OVERDUE))
    return silent.order_by("-created_at")


def _is_their_turn(checkout: Checkout, now: datetime) -> bool:
    """Whether it is time to ask for it: every minute at first, ever more seldom as it ages. Never without Redis."""
    pause = max(_SHORTEST_PAUSE, (now - checkout.created_at) / 2)
    key = f"{settings.REDIS_KEY_PREFIX}:billing:checkout-asked:{checkout.pk}"
    try:
        return bool(client().set(key, "1", nx=True, ex=pause))
    except redis.RedisError:
        return False


def _look_for_purchase(checkout: Checkout) -> bool:
    """Ask what its buyer has bought, and bind it if that can be of no other checkout; whether it was bound."""
    found = provider().find_subscriptions(checkout.buyer_email, checkout.variant_id, urgent=False)
    unclaimed = list(_unclaimed(checkout, found))
    if len(unclaimed) != 1 or not _is_the_only_workspace(checkout):
        return False
    return _bind(checkout, unclaimed[0])


def _unclaimed(checkout: Checkout, found: Iterable[SubscriptionFacts]) -> Iterable[SubscriptionFacts]:
    """Those of `found` that came after the checkout and that no workspace has."""
    begun_at = checkout.created_at.replace(microsecond=0)  # as exact as the provider's times
    recent = {each.subscription_id: each for each in found if each.created_at >= begun_at}
    taken = Subscription.objects.filter(
        provider=checkout.provider, provider_subscription_id__in=recent, workspace__isnull=False
    )
    for subscription_id in taken.values_list("provider_subscription_id", flat=True):
        del recent[subscription_id]
    return recent.values()


def _is_the_only_workspace(checkout: Checkout) -> bool:
    """Whether no other workspace has a checkout of the same buyer and variant that it could have come of."""
    others = Checkout.objects.filter(
        provider=checkout.provider,
        buyer_email__iexact=checkout.buyer_email,
        variant_id=checkout.variant_id,
        subscription=None,
        created_at__gt=utc_now() - _CHECKOUT_FORGOTTEN_AFTER,
    )
    return not others.exclude(workspace=checkout.workspace_id).exists()


def _bind(checkout: Checkout, facts: SubscriptionFacts) -> bool:
    """As if the subscription's own message had come and named the checkout."""
    now, event = utc_now(), None
    with transaction.atomic():
        subscription = locked_subscription(checkout.provider, facts.subscription_id)
        if subscription.workspace_id is None:
            applied = ask(subscription, now, urgent=False, with_invoices=True, checkout_id=str(checkout.pk))
            if applied.outcome in NOT_OURS:
                transaction.set_rollback(True)
                return False
            event = keep(subscription, applied)
    tell_operators(event)
    return event is not None
