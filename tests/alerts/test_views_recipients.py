"""The page of recipients, and what the link in a question's mail opens."""

import re
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from alerts import recipient_services
from alerts.models import MailOptOut, MailTopic, OptOutReason, Recipient
from alerts.recipients import mail_addresses, recipient_roles
from tests.factories import make_cast
from tests.pages import page, signed_in

pytestmark = pytest.mark.django_db


def address(cast, name="settings-recipients", *things):
    return reverse(name, args=[cast.workspace.slug, *things])


def opened(cast, person):
    return page(signed_in(person).get(address(cast)))


def add(cast, email="bob@example.org", person=None):
    return signed_in(person or cast.admin).post(address(cast), {"email": email}, follow=True)


def opt_out(space, email, topic=MailTopic.ALERTS, reason=OptOutReason.UNDELIVERABLE):
    return MailOptOut.objects.create(workspace=space, email=email, topic=topic, reason=reason)


# --- Roles ------------------------------------------------------------------------------------------------------------


def test_admins_choose_roles_and_see_who_that_is(cast, space):
    client = signed_in(cast.admin)
    here = page(client.get(address(cast)))
    checked = [box.attributes["value"] for box in here.all("input", type="checkbox") if "checked" in box.attributes]
    assert sorted(checked) == ["admin", "owner"]
    saved = client.post(address(cast, "settings-recipient-roles"), {"roles": ["viewer"]}, follow=True)
    assert recipient_roles(space.pk) == ["viewer"]
    assert mail_addresses(space.pk, MailTopic.ALERTS) == [cast.viewer.email]
    undo = page(saved).one(css_class="toast").one("form")
    values = [field.attributes["value"] for field in undo.all("input", name="roles")]
    client.post(undo.attributes["action"], {"roles": values})
    assert sorted(recipient_roles(space.pk)) == ["admin", "owner"]


def test_no_role_at_all_is_a_choice_and_an_unknown_one_is_none(cast, space):
    client = signed_in(cast.owner)
    client.post(address(cast, "settings-recipient-roles"), {"roles": ["king"]})
    assert sorted(recipient_roles(space.pk)) == ["admin", "owner"]
    client.post(address(cast, "settings-recipient-roles"), {})
    assert recipient_roles(space.pk) == []
    assert "No role gets mail" in opened(cast, cast.viewer).text


def test_viewers_read_and_are_offered_nothing(cast):
    add(cast)
    here = opened(cast, cast.viewer).one("main")
    assert cast.owner.email in here.text
    assert here.all("form") == []
    assert "Remove" not in here.text


def test_addresses_of_strangers_are_for_admins_only(cast, space):
    add(cast)
    opt_out(space, "eve@example.net")
    for person in (cast.viewer, cast.member):
        text = opened(cast, person).text
        assert "bob@example.org" not in text
        assert "b…@example.org" in text
        assert "eve@example.net" not in text
    text = opened(cast, cast.admin).text
    assert "bob@example.org" in text
    assert "eve@example.net" in text


def test_a_plan_without_mail_says_so(cast):
    assert "sends no messages" not in opened(cast, cast.owner).text
    free = make_cast("free")
    assert "sends no messages" in opened(free, free.owner).text


# --- Named addresses --------------------------------------------------------------------------------------------------


def test_an_address_is_added_asked_and_confirmed(cast, space):
    answer = page(add(cast))
    assert "was asked by mail" in answer.text
    assert "Not confirmed" in answer.text
    (question,) = mail.outbox
    link = re.search(r"http\S+/mail/confirm/\S+", question.body)[0]
    assert link in question.alternatives[0].content
    path = urlsplit(link).path
    reader = Client(enforce_csrf_checks=True)
    asked = page(reader.get(path))
    assert cast.admin.email in asked.text
    assert reader.head(path).status_code == 200
    assert "bob@example.org" not in mail_addresses(space.pk, MailTopic.ALERTS)
    assert reader.post(path).status_code == 403
    token = asked.one("input", name="csrfmiddlewaretoken").attributes["value"]
    thanks = reader.post(path, {"csrfmiddlewaretoken": token}, follow=True)
    assert "You get mail" in page(thanks).text
    assert "bob@example.org" in mail_addresses(space.pk, MailTopic.ALERTS)
    assert "Confirmed" in opened(cast, cast.admin).text


@pytest.mark.parametrize("token", ["nothing", "a:b:c", "%00"])
def test_a_link_that_is_none_says_what_to_do(token):
    response = Client().get(f"/mail/confirm/{token}/")
    assert response.status_code == 404
    assert "This link opens nothing" in page(response).text


@pytest.mark.parametrize(("email", "said"), [("", "required"), ("nobody", "valid"), ("OWNER", "by their role")])
def test_what_cannot_be_added_is_said_beside_the_field(cast, email, said):
    answer = add(cast, cast.owner.email.upper() if email == "OWNER" else email)
    assert answer.status_code == 422
    assert said in page(answer).one(css_class="field-bad").text
    assert not Recipient.objects.exists()
    assert not mail.outbox


def test_a_mail_server_that_is_away_is_said(cast, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert "could not be sent" in page(add(cast)).text


def test_asking_again_at_once_is_refused(cast):
    add(cast)
    again = address(cast, "settings-recipient-ask", Recipient.objects.get().pk)
    assert "Wait a minute" in page(signed_in(cast.admin).post(again, follow=True)).text
    assert len(mail.outbox) == 1


def test_an_address_is_removed_after_a_second_question(cast, space):
    add(cast)
    recipient_services.confirm(Recipient.objects.get())
    remove = address(cast, "settings-recipient-remove", Recipient.objects.get().pk)
    client = signed_in(cast.admin)
    assert "Remove bob@example.org?" in page(client.get(remove)).text
    assert Recipient.objects.exists()
    assert "gets no more mail" in page(client.post(remove, follow=True)).text
    assert not Recipient.objects.exists()


# --- Opt-outs ---------------------------------------------------------------------------------------------------------


def test_everybody_chooses_for_themselves(cast, space):
    client = signed_in(cast.owner)
    mine = address(cast, "settings-recipients-mine")
    left = page(client.post(mine, {"topic": "alerts", "wish": "off"}, follow=True))
    assert "You get no more alerts" in left.text
    assert cast.owner.email not in mail_addresses(space.pk, MailTopic.ALERTS)
    assert cast.owner.email in mail_addresses(space.pk, MailTopic.SUMMARIES)
    undo = left.one(css_class="toast").one("form")
    values = {name: undo.one("input", name=name).attributes["value"] for name in ("topic", "wish")}
    client.post(undo.attributes["action"], values)
    assert cast.owner.email in mail_addresses(space.pk, MailTopic.ALERTS)


@pytest.mark.parametrize(
    "wish", [{}, {"topic": "alerts"}, {"topic": "nothing", "wish": "off"}, {"topic": "alerts", "wish": "x"}]
)
def test_odd_wishes_change_nothing(cast, wish):
    signed_in(cast.owner).post(address(cast, "settings-recipients-mine"), wish)
    assert not MailOptOut.objects.exists()


def test_who_gets_nothing_by_role_is_told_so(cast):
    assert "Your role gets no mail" in opened(cast, cast.viewer).text
    assert "Your role gets no mail" not in opened(cast, cast.owner).text


def test_an_admin_tries_a_refused_address_again_and_nobody_elses_wish(cast, space):
    refused = opt_out(space, cast.owner.email)
    wished = opt_out(space, cast.owner.email, MailTopic.SUMMARIES, OptOutReason.UNSUBSCRIBED)
    client = signed_in(cast.admin)
    here = page(client.get(address(cast)))
    lifts = {form.attributes["action"] for form in here.all("form") if "lift" in form.attributes.get("action", "")}
    assert lifts == {address(cast, "settings-recipient-lift", refused.pk)}
    client.post(lifts.pop())
    assert cast.owner.email in mail_addresses(space.pk, MailTopic.ALERTS)
    answer = client.post(address(cast, "settings-recipient-lift", wished.pk), follow=True)
    assert "Only the person behind the address" in page(answer).text
    assert cast.owner.email not in mail_addresses(space.pk, MailTopic.SUMMARIES)


def test_the_number_of_queries_does_not_grow_with_recipients(cast, space, django_assert_max_num_queries):
    rows = [Recipient(workspace=space, email=f"r{number}@example.org", added_by=cast.owner) for number in range(50)]
    Recipient.objects.bulk_create(rows)
    client = signed_in(cast.owner)
    client.get(address(cast))
    with django_assert_max_num_queries(30):
        client.get(address(cast))
