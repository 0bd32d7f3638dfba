"""Telling people that less will be kept, and keeping less once they have known for long enough.

When a notice begins and what it says is settled by `billing.entitlements`, with every change of a plan.
"""

from datetime import datetime, timedelta
from smtplib import SMTPRecipientsRefused
from uuid import UUID

import redis
import structlog
from allauth.account.models import EmailAddress
from anymail.exceptions import AnymailInvalidAddress, AnymailRecipientsRefused
from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.core.mail import EmailMultiAlternatives
from django.db import Error, connection, transaction
from django.db.models import Exists, OuterRef
from django.template.loader import render_to_string
from django.urls import reverse

from billing.entitlements import RETENTION_NOTICE, apply_plan
from billing.models import WorkspacePlan
from ingest.services import lock_ledger
from opsmeter_site.lib.mail import NOT_MAILED
from opsmeter_site.lib.redis import client
from workspaces.models import Membership, Role
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

# Between two mails to addresses that are refused, ever longer.
_SHORTEST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)


class _MailServerAway(Exception):
    """Nothing can be mailed at the moment, to nobody."""


def end_retention_notices(now: datetime) -> int:
    """Let the shorter retention hold wherever its notice has run out by `now`; for how many workspaces.

    May be killed and run again at any time, also twice at once. One that fails is logged and tried again by the next
    run, and holds up no other.
    """
    over = WorkspacePlan.objects.filter(kept_until__lte=now, notice_mailed_at__isnull=False)
    ended = 0
    for workspace_id in list(over.order_by("kept_until").values_list("pk", flat=True)):
        try:
            ended += apply_plan(workspace_id, now=now).kept_until is None
        except (Error, ObjectDoesNotExist):
            connection.close_if_unusable_or_obsolete()
            logger.exception("retention_notice_not_ended", workspace_id=str(workspace_id))
    return ended


def mail_retention_notices(now: datetime) -> int:
    """Mail the notices that nobody has been told of yet; how many. Whatever fails is tried again by the next run.

    Only from then on do the days of a notice count. Killed between the mail and its mark, a run mails again. Addresses
    that are refused for as long as a notice runs count as none: nothing is kept for ever because nobody can be reached.
    """
    untold = WorkspacePlan.objects.filter(kept_until__isnull=False, notice_mailed_at=None)
    try:
        return sum(_tell(workspace_id, now) for workspace_id in list(untold.values_list("pk", flat=True)))
    except _MailServerAway:
        return 0


@transaction.atomic
def _tell(workspace_id: UUID, now: datetime) -> bool:
    if not _is_ours_to_mail(workspace_id):
        return False
    untold = WorkspacePlan.objects.filter(pk=workspace_id, kept_until__isnull=False, notice_mailed_at=None)
    notice = untold.select_related("plan", "workspace").first()
    if notice is None or notice.kept_until is None or _is_pausing(workspace_id, now):
        return False
    ends_at = max(notice.kept_until, now + RETENTION_NOTICE)
    addresses = _addresses(workspace_id)
    # Where nobody has an address the pages alone say it.
    if addresses and not _mail(notice, ends_at, addresses) and now < notice.kept_until:
        _pause(workspace_id, now, since=notice.kept_until - RETENTION_NOTICE)
        return False
    # The ledger is locked only now: nothing that holds it up may wait for a mail server.
    lock_ledger(workspace_id)
    same = untold.filter(
        kept_until=notice.kept_until,
        announced_raw_days=notice.announced_raw_days,
        announced_rollup_days=notice.announced_rollup_days,
    )
    if not same.update(notice_mailed_at=now, kept_until=ends_at):
        return False
    record_audit(
        "retention.announced",
        acting_user=None,
        workspace=notice.workspace,
        target=notice,
        data={
            "old": {"raw_retention_days": notice.kept_raw_days, "rollup_retention_days": notice.kept_rollup_days},
            "new": {
                "raw_retention_days": notice.announced_raw_days,
                "rollup_retention_days": notice.announced_rollup_days,
                "from": ends_at.isoformat(),
            },
        },
    )
    return True


def _is_ours_to_mail(workspace_id: UUID) -> bool:
    """Whether no other run is mailing the workspace's notice; held until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtext('retention_notice'), hashtext(%s))", [str(workspace_id)]
        )
        return bool(cursor.fetchone()[0])


def _is_pausing(workspace_id: UUID, now: datetime) -> bool:
    """Whether its addresses were refused a short while ago. Unknown without Redis: then they are tried."""
    try:
        until = client().get(_pause_key(workspace_id))
    except redis.RedisError:
        return False
    return until is not None and now.timestamp() < float(until)


def _pause(workspace_id: UUID, now: datetime, *, since: datetime) -> None:
    pause = min(max((now - since) / 2, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    try:
        client().set(_pause_key(workspace_id), (now + pause).timestamp(), ex=_LONGEST_PAUSE)
    except redis.RedisError as error:
        logger.warning("retention_notice_not_paused", error=type(error).__name__)


def _pause_key(workspace_id: UUID) -> str:
    return f"{settings.REDIS_KEY_PREFIX}:billing:notice-refused:{workspace_id}"


def _addresses(workspace_id: UUID) -> list[str]:
    """Owners and admins. Whoever signed up has confirmed the address; one that waits for that gets nothing."""
    waiting = EmailAddress.objects.filter(user=OuterRef("user"), email=OuterRef("user__email"), verified=False)
    told = Membership.objects.filter(
        ~Exists(waiting), workspace_id=workspace_id, role__in=(Role.OWNER, Role.ADMIN), user__is_active=True
    )
    return list(told.order_by("user__email").values_list("user__email", flat=True))


def _mail(notice: WorkspacePlan, ends_at: datetime, addresses: list[str]) -> bool:
    """One mail to all of them; whether at least one was taken. Raises `_MailServerAway`."""
    facts = _facts(notice, ends_at)
    subject = " ".join(render_to_string("emails/retention_notice.subject.txt", facts).split())
    facts["subject"] = subject
    mail = EmailMultiAlternatives(subject, render_to_string("emails/retention_notice.txt", facts), None, addresses)
    mail.attach_alternative(render_to_string("emails/retention_notice.html", facts), "text/html")
    try:
        return bool(mail.send())
    except (SMTPRecipientsRefused, AnymailRecipientsRefused, AnymailInvalidAddress) as error:
        _log_failure(notice, error)
        return False
    except NOT_MAILED as error:
        _log_failure(notice, error)
        raise _MailServerAway from error


def _log_failure(notice: WorkspacePlan, error: Exception) -> None:
    logger.warning("retention_notice_not_mailed", workspace_id=str(notice.pk), error=type(error).__name__)


def _facts(notice: WorkspacePlan, ends_at: datetime) -> dict[str, object]:
    workspace = notice.workspace
    return {
        "workspace_name": workspace.name,
        "plan_name": notice.plan.name,
        "day": f"{ends_at.astimezone(workspace.timezone):%-d %B %Y}",
        "raw_days": notice.announced_raw_days,
        "raw_days_before": notice.kept_raw_days,
        "rollup_days": notice.announced_rollup_days,
        "rollup_days_before": notice.kept_rollup_days,
        "billing_url": settings.OPSMETER_URL + reverse("settings-billing", args=[workspace.slug]),
        "exports_url": settings.OPSMETER_URL + reverse("exports", args=[workspace.slug]),
        "reason": "You get this mail because you are an owner or an admin of the workspace.",
    }
