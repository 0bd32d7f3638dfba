import pytest

from opsmeter_site.lib.errors import InvalidInput
from tests.factories import UserFactory
from workspaces import services
from workspaces.models import AuditEntry, User

pytestmark = pytest.mark.django_db


def test_a_person_is_stored_with_a_lower_case_address_and_a_usable_password():
    user = services.create_user(email=" New@Example.COM ", password="long-enough-words", acting_user=None)
    assert user.email == "new@example.com"
    assert user.check_password("long-enough-words")
    assert not user.is_staff
    assert "long-enough" not in str(AuditEntry.objects.values().get())


def test_without_a_password_nobody_can_sign_in():
    assert not services.create_user(email="new@example.com", acting_user=None).has_usable_password()


@pytest.mark.parametrize("email", ["", "nobody", "a@", "a b@example.com", "nul\x00@example.com", "x" * 250 + "@e.com"])
def test_a_bad_address_is_refused(email):
    with pytest.raises(InvalidInput) as refusal:
        services.create_user(email=email, acting_user=None)
    assert refusal.value.errors[0].field == "email"


def test_an_address_belongs_to_one_person_whatever_its_case():
    UserFactory(email="taken@example.com")
    with pytest.raises(InvalidInput) as refusal:
        services.create_user(email="Taken@example.com", acting_user=None)
    assert {error.field for error in refusal.value.errors} <= {"email", ""}
    assert User.objects.count() == 1


@pytest.mark.parametrize("password", ["", "short", "password1234", "somebody@example.com"])
def test_a_weak_password_is_refused_and_nothing_stored(password):
    with pytest.raises(InvalidInput) as refusal:
        services.create_user(email="somebody@example.com", password=password, acting_user=None)
    assert refusal.value.errors[0].field == "password"
    assert not User.objects.exists()


def test_changes_of_a_person_are_audited_with_both_values():
    operator, user = UserFactory(), UserFactory(email="old@example.com", name="Same")
    services.update_user(user, email="New@example.com", name="Same", is_active=False, acting_user=operator)
    user.refresh_from_db()
    assert (user.email, user.is_active) == ("new@example.com", False)
    entry = AuditEntry.objects.get(action="user.changed")
    assert entry.actor == operator
    assert entry.data == {"email": ["old@example.com", "new@example.com"], "is_active": [True, False]}


def test_a_person_cannot_take_anothers_address():
    UserFactory(email="taken@example.com")
    user = UserFactory()
    with pytest.raises(InvalidInput):
        services.update_user(user, email="TAKEN@example.com", acting_user=None)
