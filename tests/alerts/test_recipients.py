"""Who gets mail: by role, by name, and not after leaving."""

from datetime import timedelta

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.core import mail

from alerts import recipient_services
from alerts.models import MailOptOut, MailTopic, OptOutReason, Recipient
from alerts.recipients import mail_addresses
from alerts.settings_services import update_alert_settings
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from tests.factories import make_cast
from tests.mailing import REFUSING_PROVIDER
from workspaces.models import AuditEntry
from workspaces.services import remove_member, update_user

pytestmark = pytest.mark.django_db

ALERTS, SUMMARIES = MailTopic.ALERTS, MailTopic.SUMMARIES


def named(cast, email="bob@example.org", *, confirmed=True):
    recipient = recipient_services.add_recipient(cast.workspace, email, acting_user=cast.admin)
    if confirmed:
        recipient_services.confirm(recipient)
    return recipient


def opt_out(space, email, topic=ALERTS, reason=OptOutReason.UNDELIVERABLE):
    return MailOptOut.objects.create(workspace=space, email=email, topic=topic, reason=reason)


# --- Addresses --------------------------------------------------------------------------------------------------------


def test_owners_and_admins_get_mail_until_somebody_chooses_others(cast, space):
    assert mail_addresses(space.pk, ALERTS) == sorted([cast.owner.email, cast.admin.email])
    update_alert_settings(space, acting_user=cast.owner, recipient_roles=["viewer"])
    assert mail_addresses(space.pk, ALERTS) == [cast.viewer.email]
    update_alert_settings(space, acting_user=cast.owner, recipient_roles=[])
    assert mail_addresses(space.pk, ALERTS) == []


def test_who_left_or_was_deactivated_gets_nothing(cast, space):
    remove_member(space, cast.admin, acting_user=cast.owner)
    update_user(cast.owner, acting_user=None, is_active=False)
    assert mail_addresses(space.pk, ALERTS) == []


def test_an_address_that_waits_for_its_confirmation_gets_nothing(cast, space):
    EmailAddress.objects.filter(user=cast.admin).delete()
    waiting = EmailAddress.objects.create(user=cast.admin, email=cast.admin.email, verified=False)
    assert cast.admin.email not in mail_addresses(space.pk, ALERTS)
    waiting.verified = True
    waiting.save()
    # Wanting to change to another one changes nothing.
    EmailAddress.objects.create(user=cast.admin, email="wanted@example.org", verified=False)
    assert cast.admin.email in mail_addresses(space.pk, ALERTS)


def test_named_addresses_get_mail_once_they_have_confirmed(cast, space):
    recipient = named(cast, "Bob@Example.org", confirmed=False)
    assert "bob@example.org" not in mail_addresses(space.pk, ALERTS)
    recipient_services.confirm(recipient)
    assert "bob@example.org" in mail_addresses(space.pk, ALERTS)
    assert "bob@example.org" in mail_addresses(space.pk, SUMMARIES)


def test_opting_out_holds_for_one_topic_and_one_workspace(cast, space):
    elsewhere = make_cast("pro")
    named(cast)
    named(elsewhere)
    opt_out(space, "bob@example.org", ALERTS)
    opt_out(space, cast.owner.email, SUMMARIES)
    assert mail_addresses(space.pk, ALERTS) == sorted([cast.owner.email, cast.admin.email])
    assert mail_addresses(space.pk, SUMMARIES) == sorted([cast.admin.email, "bob@example.org"])
    assert "bob@example.org" in mail_addresses(elsewhere.workspace.pk, ALERTS)


def test_a_member_who_is_named_too_gets_it_once(cast, space):
    named(cast, cast.viewer.email)
    update_alert_settings(space, acting_user=cast.owner, recipient_roles=["viewer"])
    assert mail_addresses(space.pk, ALERTS) == [cast.viewer.email]


# --- Named addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("email", ["", "no address", "two@example.org, more@example.org", "nul\x00@example.org"])
def test_what_is_no_address_is_refused(cast, email):
    with pytest.raises(InvalidInput) as refusal:
        named(cast, email)
    assert refusal.value.errors[0].field == "email"
    assert not Recipient.objects.exists()


def test_an_address_is_listed_once(cast):
    named(cast)
    with pytest.raises(InvalidInput, match="listed already"):
        named(cast, "BOB@example.org")


def test_who_gets_it_by_role_anyway_is_not_added(cast):
    with pytest.raises(InvalidInput, match="by their role"):
        named(cast, cast.admin.email)
    assert named(cast, cast.viewer.email).email == cast.viewer.email


def test_there_are_at_most_fifty(cast, space):
    rows = [Recipient(workspace=space, email=f"r{number}@example.org", added_by=cast.owner) for number in range(50)]
    Recipient.objects.bulk_create(rows)
    with pytest.raises(InvalidInput, match="At most 50"):
        named(cast)


def test_the_question_is_mailed_with_who_asks_and_a_link(cast, settings):
    recipient = named(cast, confirmed=False)
    assert recipient_services.ask_to_confirm(recipient, asked_by=cast.admin)
    (question,) = mail.outbox
    assert question.to == ["bob@example.org"]
    assert cast.workspace.name in question.subject
    assert cast.admin.email in question.body
    assert f"{settings.OPSMETER_URL}/mail/confirm/" in question.body


def token_in(question):
    return question.body.split("/mail/confirm/")[1].split("/")[0]


def asked(cast, recipient):
    recipient_services.ask_to_confirm(recipient, asked_by=cast.admin)
    return token_in(mail.outbox[-1])


def test_a_link_is_for_one_row_and_seven_days(cast):
    recipient = named(cast, confirmed=False)
    token = asked(cast, recipient)
    assert recipient_services.recipient_for_token(token) == recipient
    for broken in ("", "nothing", token[:-1], f"{token}x", "a:b:c"):
        assert recipient_services.recipient_for_token(broken) is None
    with time_machine.travel(utc_now() + timedelta(days=7, minutes=-1), tick=False):
        assert recipient_services.recipient_for_token(token) == recipient
    with time_machine.travel(utc_now() + timedelta(days=7, minutes=1), tick=False):
        assert recipient_services.recipient_for_token(token) is None
    recipient_services.remove_recipient(recipient, acting_user=cast.admin)
    named(cast, confirmed=False)
    assert recipient_services.recipient_for_token(token) is None


def test_confirming_takes_back_that_the_address_had_unsubscribed(cast, space):
    recipient = named(cast, confirmed=False)
    opt_out(space, recipient.email, ALERTS, OptOutReason.UNSUBSCRIBED)
    opt_out(space, recipient.email, SUMMARIES, OptOutReason.UNDELIVERABLE)
    recipient_services.confirm(recipient)
    recipient_services.confirm(recipient)
    assert recipient.email in mail_addresses(space.pk, ALERTS)
    assert recipient.email not in mail_addresses(space.pk, SUMMARIES)
    assert AuditEntry.objects.filter(workspace=space, action="recipient.confirmed").count() == 1


def test_an_address_is_not_flooded_with_questions(cast):
    recipient = named(cast, confirmed=False)
    moment = utc_now()
    with pytest.raises(NotAllowed, match="Wait a minute"):
        recipient_services.ask_again(recipient, acting_user=cast.admin)
    for minutes in (2, 4):
        with time_machine.travel(moment + timedelta(minutes=minutes), tick=False):
            recipient_services.ask_again(recipient, acting_user=cast.admin)
    with time_machine.travel(moment + timedelta(minutes=6), tick=False):
        with pytest.raises(InvalidInput, match="3 times within a day"):
            recipient_services.ask_again(recipient, acting_user=cast.admin)
        recipient_services.remove_recipient(recipient, acting_user=cast.admin)
        with pytest.raises(InvalidInput, match="3 times within a day"):
            named(cast)
    with time_machine.travel(moment + timedelta(days=1, minutes=7), tick=False):
        named(cast)


def test_a_workspace_asks_only_so_many_in_a_day(cast, space):
    for number in range(recipient_services.ASKED_A_DAY_BY_WORKSPACE):
        recipient = named(cast, f"r{number}@example.org", confirmed=False)
        recipient_services.remove_recipient(recipient, acting_user=cast.admin)
    with pytest.raises(InvalidInput, match="50 addresses were asked"):
        named(cast)
    assert named(make_cast("pro")).email == "bob@example.org"  # another workspace may ask


def test_who_has_confirmed_is_not_asked_again(cast):
    with pytest.raises(NotAllowed, match="confirmed already"):
        recipient_services.ask_again(named(cast), acting_user=cast.admin)


def test_a_mail_server_that_is_away_is_said_and_not_raised(cast, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert recipient_services.ask_to_confirm(named(cast, confirmed=False), asked_by=cast.admin) is False


def test_a_mail_provider_that_refuses_the_address_is_said_too(cast, settings):
    settings.EMAIL_BACKEND = REFUSING_PROVIDER
    assert recipient_services.ask_to_confirm(named(cast, confirmed=False), asked_by=cast.admin) is False


def test_a_removed_address_gets_nothing(cast, space):
    recipient_services.remove_recipient(named(cast), acting_user=cast.admin)
    assert "bob@example.org" not in mail_addresses(space.pk, ALERTS)


def test_an_admin_lifts_a_refusal_by_a_mail_server_and_nobody_a_wish(cast, space):
    refused = opt_out(space, cast.owner.email)
    recipient_services.lift(refused, acting_user=cast.admin)
    assert cast.owner.email in mail_addresses(space.pk, ALERTS)
    with pytest.raises(NotAllowed, match="Only the person"):
        recipient_services.lift(
            opt_out(space, cast.owner.email, reason=OptOutReason.UNSUBSCRIBED), acting_user=cast.admin
        )
    assert cast.owner.email not in mail_addresses(space.pk, ALERTS)


def test_every_change_is_in_the_audit_trail(cast, space):
    recipient = named(cast)
    recipient_services.remove_recipient(recipient, acting_user=cast.admin)
    recipient_services.remove_recipient(recipient, acting_user=cast.admin)
    entries = AuditEntry.objects.filter(workspace=space, action__startswith="recipient.").order_by("pk")
    assert list(entries.values_list("action", "target", "actor")) == [
        ("recipient.added", "bob@example.org", cast.admin.pk),
        ("recipient.confirmed", "bob@example.org", None),
        ("recipient.removed", "bob@example.org", cast.admin.pk),
    ]


def test_addresses_are_read_in_three_queries(space, django_assert_num_queries):
    with django_assert_num_queries(3):
        mail_addresses(space.pk, ALERTS)
