"""A button that is pressed twice at the same moment, on a real PostgreSQL."""

import pytest
from django.core import mail

from tests.races import at_once
from tests.workspaces.people import browser, link_in, make_person, new_address, proven, sign_up, signed_in
from workspaces.models import User

pytestmark = pytest.mark.usefixtures("committed")


def test_two_sign_ups_at_once_make_one_person():
    email = new_address("twice")
    answers = at_once(*[lambda: sign_up(browser(), email)] * 4)
    assert {answer["Location"] for answer in answers} == {"/accounts/confirm-email/"}
    assert User.objects.filter(email=email).count() == 1


def test_two_confirmations_of_a_change_at_once_make_one():
    person, wanted = make_person(), new_address("moved")
    client, other = proven(signed_in(person)), signed_in(person)
    client.post("/accounts/email/", {"action_add": "", "email": wanted})
    link = link_in(mail.outbox[-1])
    answers = at_once(lambda: client.post(link), lambda: other.post(link))
    assert all(answer.status_code in {302, 404} for answer in answers)
    assert User.objects.get(pk=person.pk).email == wanted
    assert person.emailaddress_set.get().verified
