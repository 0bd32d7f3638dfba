"""What people do with an alert. Who may is decided by the caller; doing it twice changes nothing."""

from datetime import timedelta
from unicodedata import category

from django.db import transaction

from alerts.audiences import lock_inboxes
from alerts.models import Alert, AlertKind, AlertNote, AlertState
from alerts.outgoing import close_incidents, withdraw
from alerts.recovery import closes_at
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed, NotFound
from workspaces.models import User

LONGEST_NOTE = 2_000
_SENT_TWICE_WITHIN = timedelta(minutes=1)
_LINE_ENDS = "\n\t"


@transaction.atomic
def acknowledge(alert: Alert, acting_user: User) -> Alert:
    """Note that somebody looks after it. One that is acknowledged or resolved stays as it is."""
    stored = _locked(alert)
    if stored.state == AlertState.OPEN:
        stored.state, stored.acknowledged_at, stored.acknowledged_by = AlertState.ACKNOWLEDGED, utc_now(), acting_user
        stored.save(update_fields=["state", "acknowledged_at", "acknowledged_by"])
    return stored


@transaction.atomic
def resolve(alert: Alert, acting_user: User) -> Alert:
    """Close it: what is still held about it is not sent, and PagerDuty hears of it. A resolved one stays as it is."""
    stored = _locked(alert)
    if stored.state == AlertState.RESOLVED:
        return stored
    now = utc_now()
    stored.state, stored.resolved_at, stored.resolved_by = AlertState.RESOLVED, now, acting_user
    stored.save(update_fields=["state", "resolved_at", "resolved_by"])
    withdraw([stored])
    close_incidents([stored], now)
    return stored


@transaction.atomic
def reopen(alert: Alert, acting_user: User) -> Alert:
    """Undo what a person did: the alert is open again. One that is open stays as it is.

    Raises `NotAllowed` for one that has resolved by itself, is past, or has come up again since.
    """
    stored = _locked(alert)
    if stored.state == AlertState.OPEN:
        return stored
    if stored.state == AlertState.RESOLVED:
        _refuse_to_reopen(stored)
    stored.state = AlertState.OPEN
    stored.acknowledged_at = stored.acknowledged_by = stored.resolved_at = stored.resolved_by = None
    stored.save(update_fields=["state", "acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by"])
    return stored


@transaction.atomic
def add_note(alert: Alert, acting_user: User, text: str) -> AlertNote:
    """Write something beside it. The same note sent twice is one. Raises `InvalidInput` (`text`)."""
    clean = _clean_note(text)
    stored = _locked(alert)
    just_now = utc_now() - _SENT_TWICE_WITHIN
    same = AlertNote.objects.filter(alert=stored, author=acting_user, text=clean, created_at__gte=just_now).first()
    return same or AlertNote.objects.create(alert=stored, author=acting_user, text=clean)


def _locked(alert: Alert) -> Alert:
    """The alert as it is stored. The inbox comes first, as for everybody who changes one."""
    lock_inboxes([alert.workspace_id])
    stored = Alert.objects.select_for_update(no_key=True).filter(pk=alert.pk).first()
    if stored is None:
        raise NotFound("There is no such alert any more.")
    return stored


def _refuse_to_reopen(alert: Alert) -> None:
    if alert.kind == AlertKind.RECOVERY or alert.resolved_by_id is None:
        raise NotAllowed("It resolved by itself. If it happens again, there is a new alert.")
    if closes_at(alert.kind, alert.window_end) <= utc_now():
        raise NotAllowed("Its time is over. If it happens again, there is a new alert.")
    same = Alert.objects.filter(workspace=alert.workspace_id, dedup_key=alert.dedup_key, kind=alert.kind)
    if same.exclude(state=AlertState.RESOLVED).exists():
        raise NotAllowed("It has come up again since: there is a newer alert about the same.")


def _clean_note(text: str) -> str:
    clean = text.replace("\r\n", "\n").strip()
    if not clean:
        raise InvalidInput("Missing text.", errors=[FieldError("text", "Must not be empty.")])
    if len(clean) > LONGEST_NOTE:
        raise InvalidInput("Text too long.", errors=[FieldError("text", f"At most {LONGEST_NOTE:,} characters.")])
    if any(category(character) in ("Cc", "Cs") and character not in _LINE_ENDS for character in clean):
        raise InvalidInput("Bad text.", errors=[FieldError("text", "Control characters are not allowed.")])
    return clean
