"""Nothing is deleted for a smaller plan before people have known for seven days."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from smtplib import SMTPRecipientsRefused, SMTPServerDisconnected

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.test import TestCase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.entitlements import RETENTION_NOTICE
from billing.models import Plan, WorkspacePlan
from billing.plans import Overrides, effective_numbers, overrides_of
from billing.retention_notices import end_retention_notices, mail_retention_notices
from billing.services import change_workspace_plan, update_plan
from billing.subscriptions import expire_lapsed
from ingest.models import Event, Rollup, WorkspacePolicy
from ingest.retention import purge_workspace
from opsmeter_site.lib.clock import utc_now
from tests.billing.provider_facts import DAY, SAID_AT, SECOND, facts, hear, make_checkout, new_id, sell_plans, subscribe
from tests.factories import make_cast, make_workspace
from tests.ledger import make_event
from tests.races import at_once, while_uncommitted
from workspaces.models import AuditEntry, Membership

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
PRO, FREE, STARTER, TEAM = (90, 365), (14, 90), (30, 180), (180, 730)


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as moved:
        yield moved


@pytest.fixture
def workspace(clock):
    return make_workspace("pro").workspace


def grant(workspace, plan, **own):
    overrides = Overrides(**own) if own else None
    return change_workspace_plan(workspace, plan_tier=plan, overrides=overrides, acting_user=None)


def kept(workspace):
    """The days that ingest goes by."""
    policy = WorkspacePolicy.objects.get(workspace=workspace)
    return policy.raw_retention_days, policy.rollup_retention_days


def notice(workspace):
    """Until when what is kept, what will be kept then, and when people were told; None without a notice."""
    row = WorkspacePlan.objects.get(workspace=workspace)
    if row.kept_until is None:
        return None
    return row.kept_until, (row.announced_raw_days, row.announced_rollup_days), row.notice_mailed_at


def sweep():
    """What the clock does each minute."""
    now = utc_now()
    expire_lapsed(now)
    mail_retention_notices(now)
    end_retention_notices(now)


# --- How a notice runs


def test_a_reduction_waits_until_people_have_known_for_seven_days(workspace, clock):
    grant(workspace, "free")
    assert (kept(workspace), notice(workspace)) == (PRO, (NOON + RETENTION_NOTICE, FREE, None))
    sweep()
    assert notice(workspace) == (NOON + RETENTION_NOTICE, FREE, NOON)
    clock.shift(RETENTION_NOTICE - SECOND)
    sweep()
    assert kept(workspace) == PRO
    clock.shift(SECOND)
    sweep()
    assert (kept(workspace), notice(workspace)) == (FREE, None)
    announced, shortened = AuditEntry.objects.filter(workspace=workspace, action__startswith="retention.").order_by(
        "pk"
    )
    old, new = (
        {"raw_retention_days": 90, "rollup_retention_days": 365},
        {
            "raw_retention_days": 14,
            "rollup_retention_days": 90,
        },
    )
    ends_at = (NOON + RETENTION_NOTICE).isoformat()
    assert (announced.action, announced.data) == ("retention.announced", {"old": old, "new": {**new, "from": ends_at}})
    assert (shortened.action, shortened.data) == ("retention.shortened", {"old": old, "new": new})


def test_the_days_count_from_the_mail(workspace, clock, monkeypatch):
    grant(workspace, "free")
    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", _down)
        clock.shift(30 * DAY)
        sweep()
        assert (kept(workspace), notice(workspace)[2]) == (PRO, None)
    sweep()
    assert notice(workspace) == (NOON + 37 * DAY, FREE, NOON + 30 * DAY)
    clock.shift(7 * DAY)
    sweep()
    assert kept(workspace) == FREE


def test_a_new_workspace_has_no_notice(workspace):
    assert notice(workspace) is None


def test_going_back_withdraws_the_notice(workspace):
    grant(workspace, "free")
    grant(workspace, "pro")
    assert (kept(workspace), notice(workspace)) == (PRO, None)


def test_falling_further_starts_the_notice_again(workspace, clock):
    grant(workspace, "starter")
    sweep()
    clock.shift(5 * DAY)
    grant(workspace, "free")
    assert (kept(workspace), notice(workspace)) == (PRO, (NOON + 12 * DAY, FREE, None))


def test_rising_on_the_way_goes_on_with_the_same_end(workspace, clock, mailoutbox):
    grant(workspace, "free")
    sweep()
    clock.shift(5 * DAY)
    grant(workspace, "starter")
    assert notice(workspace) == (NOON + RETENTION_NOTICE, STARTER, NOON)
    clock.shift(2 * DAY)
    sweep()
    assert kept(workspace) == STARTER
    assert len(mailoutbox) == 1


def test_what_was_promised_on_the_way_counts_as_well(workspace, clock):
    """Free, Starter, Free: that Starter's rows go is known since the third step only."""
    grant(workspace, "free")
    sweep()
    clock.shift(3 * DAY)
    grant(workspace, "starter")
    clock.shift(3 * DAY)
    grant(workspace, "free")
    sweep()
    clock.shift(RETENTION_NOTICE - SECOND)
    sweep()
    assert kept(workspace) == PRO


def test_only_the_raw_rows_fall(workspace, clock):
    grant(workspace, "pro", raw_retention_days=10, rollup_retention_days=400)
    assert (kept(workspace), notice(workspace)[1]) == ((90, 400), (10, 400))
    sweep()
    clock.shift(RETENTION_NOTICE)
    sweep()
    assert kept(workspace) == (10, 400)


def test_every_way_of_losing_a_plan_gives_notice(clock, django_capture_on_commit_callbacks):
    sell_plans()
    said, cancelled, edited = (make_workspace("free").workspace for _ in range(3))
    row = subscribe(said)
    subscribe(cancelled, status="cancelled", ends_at=NOON + DAY)
    subscribe(edited, "team")
    hear(facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + DAY))
    with django_capture_on_commit_callbacks(execute=True):
        team = Plan.objects.get(tier="team")
        update_plan(team, acting_user=None, raw_retention_days=1, rollup_retention_days=2)
    clock.shift(DAY)
    expire_lapsed(utc_now())
    assert [kept(each) for each in (said, cancelled, edited)] == [PRO, PRO, TEAM]
    assert [notice(each)[1] for each in (said, cancelled, edited)] == [FREE, FREE, (1, 2)]


# --- What people are told


def test_owners_and_admins_are_mailed_once_in_plain_words(clock, mailoutbox, settings):
    settings.OPSMETER_URL = "https://opsmeter.example"
    cast = make_cast("pro", name="Acme & Sons", timezone="Pacific/Kiritimati")
    grant(cast.workspace, "free")
    sweep()
    sweep()
    (mail,) = mailoutbox
    assert sorted(mail.to) == sorted([cast.owner.email, cast.admin.email])
    html, _ = mail.alternatives[0]
    assert mail.subject == "From 23 June 2026 on less is kept of Acme & Sons on Opsmeter"
    for text in (mail.body, re.sub(r"\s+", " ", html)):
        assert "is on the plan Free now" in text
        assert "Raw rows, one for each request, are kept for 14 days instead of 90." in text
        assert "are kept for 90 days instead of 365." in text
        assert f"https://opsmeter.example/w/{cast.workspace.slug}/settings/billing/" in text
        assert f"https://opsmeter.example/w/{cast.workspace.slug}/exports/" in text
    assert "Acme & Sons" in mail.body
    assert "Acme &amp; Sons" in html
    assert "&amp;" not in mail.body


def test_only_what_falls_is_told(workspace, mailoutbox):
    grant(workspace, "pro", raw_retention_days=10)
    sweep()
    assert "instead of 90." in mailoutbox[0].body
    assert "Quarter-hour" not in mailoutbox[0].body


def test_addresses_that_wait_for_their_confirmation_and_people_who_left_get_nothing(clock, mailoutbox):
    cast = make_cast("pro")
    EmailAddress.objects.filter(user=cast.admin).update(verified=False)
    if not EmailAddress.objects.filter(user=cast.admin).exists():
        EmailAddress.objects.create(user=cast.admin, email=cast.admin.email, verified=False)
    grant(cast.workspace, "free")
    sweep()
    assert mailoutbox[0].to == [cast.owner.email]


def test_where_nobody_has_an_address_the_pages_tell_it(workspace, clock, mailoutbox):
    Membership.objects.filter(workspace=workspace).delete()
    grant(workspace, "free")
    sweep()
    assert mailoutbox == []
    clock.shift(RETENTION_NOTICE)
    sweep()
    assert kept(workspace) == FREE


def _down(self, messages):
    raise SMTPServerDisconnected("gone")


@pytest.mark.usefixtures("_redis_used")
def test_one_address_that_is_refused_holds_up_nobody_else(workspace, mailoutbox, monkeypatch):
    other = make_workspace("pro").workspace
    grant(workspace, "free")
    grant(other, "free")
    (refused,) = workspace.memberships.values_list("user__email", flat=True)
    deliver = EmailBackend.send_messages

    def picky(self, messages):
        if refused in messages[0].to:
            raise SMTPRecipientsRefused({refused: (550, b"no such mailbox")})
        return deliver(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", picky)
    assert mail_retention_notices(utc_now()) == 1
    assert (notice(workspace)[2], notice(other)[2]) == (None, utc_now())


@pytest.mark.usefixtures("_redis_used")
def test_addresses_that_are_refused_are_tried_ever_more_seldom_and_not_for_ever(workspace, clock, monkeypatch):
    tried = []

    def refuse(self, messages):
        tried.append(utc_now())
        raise SMTPRecipientsRefused({messages[0].to[0]: (550, b"no such mailbox")})

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    grant(workspace, "free")
    for _ in range(4 * 60):
        mail_retention_notices(utc_now())
        clock.shift(MINUTE)
    assert 10 <= len(tried) <= 20
    assert max(later - earlier for earlier, later in pairwise(tried)) <= 60 * MINUTE
    clock.move_to(NOON + RETENTION_NOTICE)
    sweep()
    assert (kept(workspace), notice(workspace)) == (PRO, (NOON + 2 * RETENTION_NOTICE, FREE, utc_now()))
    clock.shift(RETENTION_NOTICE)
    sweep()
    assert kept(workspace) == FREE


# --- At the same moment, and what is deleted


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_two_runs_at_once_mail_once_and_end_it_once(mailoutbox):
    workspace = make_workspace("pro").workspace
    grant(workspace, "free")
    now = utc_now()
    assert max(at_once(*[lambda: mail_retention_notices(now)] * 3)) == 1
    assert len(mailoutbox) == 1
    at_once(*[lambda: end_retention_notices(now + 8 * DAY)] * 3)
    assert kept(workspace) == FREE
    assert AuditEntry.objects.filter(workspace=workspace, action="retention.shortened").count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_an_end_and_an_upgrade_at_once(mailoutbox):
    workspace = make_workspace("pro").workspace
    grant(workspace, "free")
    now = utc_now()
    mail_retention_notices(now)
    while_uncommitted(lambda: grant(workspace, "pro"), lambda: end_retention_notices(now + 8 * DAY))
    assert (kept(workspace), notice(workspace)) == (PRO, None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_a_mail_that_says_too_little_does_not_count(mailoutbox, monkeypatch):
    """The numbers fall further while the mail is on its way."""
    workspace = make_workspace("pro").workspace
    grant(workspace, "starter")
    deliver = EmailBackend.send_messages

    def slow(self, messages):
        at_once(lambda: grant(workspace, "free"))
        return deliver(self, messages)

    with monkeypatch.context() as patched:
        patched.setattr(EmailBackend, "send_messages", slow)
        assert mail_retention_notices(utc_now()) == 0
    assert notice(workspace)[1:] == (FREE, None)
    assert mail_retention_notices(utc_now()) == 1
    assert "14 days instead of 90" in mailoutbox[-1].body


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_rows_go_when_the_notice_is_over_and_not_before(mailoutbox):
    workspace = make_workspace("pro").workspace
    now = utc_now()
    for days in (5, 40, 100):
        make_event(workspace, occurred_at=now - days * DAY)
    row = subscribe(workspace, "team")
    grant(workspace, "free")
    hear(facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + DAY))
    mail_retention_notices(now)

    before = now + RETENTION_NOTICE - timedelta(minutes=1)
    end_retention_notices(before)
    purge_workspace(workspace.pk, before)
    assert (Event.objects.count(), Rollup.objects.count()) == (3, 3)

    after = now + RETENTION_NOTICE + timedelta(minutes=1)
    end_retention_notices(after)
    purge_workspace(workspace.pk, after)
    assert (Event.objects.count(), Rollup.objects.count()) == (1, 2)


# --- Whatever happens, in whatever order

_DAYS = st.integers(1, 40)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 24, 71, 168, 200])),
        st.tuples(st.just("mail"), st.booleans()),
        st.tuples(st.just("sweep")),
        st.tuples(st.just("grant"), st.sampled_from(["free", "starter", "pro", "team"])),
        st.tuples(st.just("own"), st.none() | _DAYS, st.none() | _DAYS),
        st.tuples(st.just("edit"), st.sampled_from(["free", "pro"]), _DAYS, _DAYS),
        st.tuples(st.just("pay"), st.sampled_from(["active", "unpaid", "expired"]), st.sampled_from(["pro", "team"])),
        st.tuples(st.just("cancel"), st.sampled_from([1, 100])),
    ),
    min_size=3,
    max_size=14,
)


class _Life:
    """A workspace, and a witness who notes what was in force when, and what people were told."""

    def __init__(self, clock):
        self.clock = clock
        self.workspace = make_workspace("pro").workspace
        self.checkout, self.number, self.said = make_checkout(self.workspace), new_id(), 0
        self.in_force, self.told = [], []
        self.kept = kept(self.workspace)
        self.look()

    def target(self):
        row = WorkspacePlan.objects.select_related("plan").get(workspace=self.workspace)
        numbers = effective_numbers(row.plan, overrides_of(row))
        return numbers.raw_retention_days, numbers.rollup_retention_days

    def look(self):
        now, target, before = utc_now(), self.target(), self.kept
        self.kept = kept(self.workspace)
        if not self.in_force or self.in_force[-1][1] != target:
            self.in_force.append((now, target))
        ends = [start for start, _ in self.in_force[1:]] + [now + SECOND]
        for which in (0, 1):
            relied_on = [
                days[which] for end, (_, days) in zip(ends, self.in_force, strict=True) if end > now - RETENTION_NOTICE
            ]
            assert self.kept[which] >= max(relied_on)
            if self.kept[which] < before[which]:
                known = [days[which] for at, days in self.told if at <= now - RETENTION_NOTICE]
                assert min(known) <= self.kept[which]

    def tell(self, *, works):
        announced = notice(self.workspace)
        with pytest.MonkeyPatch.context() as broken:
            if not works:
                broken.setattr(EmailBackend, "send_messages", _down)
            if mail_retention_notices(utc_now()):
                self.told.append((utc_now(), announced[1]))

    def hear(self, status, plan, **more):
        self.said += 1
        told = facts(self.number, plan, status=status, updated_at=SAID_AT + self.said * SECOND, **more)
        hear(told, checkout=self.checkout)

    def step(self, name, *facts_of_it):
        match name, *facts_of_it:
            case "wait", hours:
                self.clock.shift(timedelta(hours=hours))
            case "mail", works:
                self.tell(works=works)
            case ("sweep",):
                expire_lapsed(utc_now())
                end_retention_notices(utc_now())
            case "grant", plan:
                grant(self.workspace, plan)
            case "own", raw, rollups:
                plan = WorkspacePlan.objects.get(workspace=self.workspace).granted_id
                grant(self.workspace, plan, raw_retention_days=raw, rollup_retention_days=rollups)
            case "edit", tier, raw, more:
                with TestCase.captureOnCommitCallbacks(execute=True):
                    update_plan(
                        Plan.objects.get(tier=tier),
                        acting_user=None,
                        raw_retention_days=raw,
                        rollup_retention_days=raw + more,
                    )
            case "pay", status, plan:
                self.hear(status, plan)
            case "cancel", hours:
                self.hear("cancelled", "pro", ends_at=utc_now() + timedelta(hours=hours))
        self.look()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS)
def test_whatever_happens_nothing_goes_that_was_promised_within_seven_days(db, steps):
    with time_machine.travel(NOON, tick=False) as clock, transaction.atomic():
        life = _Life(clock)
        for step in steps:
            life.step(*step)
        # Left alone, it gets to where the plan is.
        for last in (("wait", 101), ("sweep",), ("mail", True), ("wait", 168), ("sweep",)):
            life.step(*last)
        assert (kept(life.workspace), notice(life.workspace)) == (life.target(), None)
        transaction.set_rollback(True)
