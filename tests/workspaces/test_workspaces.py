import pytest

from opsmeter_site.lib.errors import InvalidInput
from tests.factories import UserFactory
from workspaces import services
from workspaces.models import AuditEntry, Membership, Role, Workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return UserFactory()


def create(owner, **wanted):
    return services.create_workspace(
        **{"name": "Acme & Söhne", "owner": owner, "timezone": "Europe/Berlin", "acting_user": owner, **wanted}
    )


def test_a_new_workspace_has_an_owner_a_zone_and_a_slug_made_from_its_name(owner):
    workspace = Workspace.objects.get(pk=create(owner).pk)
    assert workspace.slug == "acme-sohne"
    assert str(workspace.timezone) == "Europe/Berlin"
    assert Membership.objects.get(workspace=workspace).role == Role.OWNER
    assert AuditEntry.objects.get(action="workspace.created").actor == owner


@pytest.mark.parametrize(
    ("name", "slug"),
    [("東京", "workspace"), ("---", "workspace"), ("x" * 100, "x" * 50), (" Trimmed ", "trimmed")],
)
def test_every_name_makes_a_slug(owner, name, slug):
    assert create(owner, name=name).slug == slug


def test_workspaces_of_one_name_are_numbered(owner):
    assert [create(owner, name="Acme").slug for _ in range(3)] == ["acme", "acme-2", "acme-3"]


def test_a_wanted_slug_is_taken_to_the_letter_or_refused(owner):
    assert create(owner, slug="mine").slug == "mine"
    for slug in ("mine", "not a slug", "", "x" * 61):
        with pytest.raises(InvalidInput) as refusal:
            create(owner, slug=slug)
        assert refusal.value.errors[0].field == "slug"


@pytest.mark.parametrize(
    "timezone", ["", "localtime", "Mars/Olympus", "../../etc/passwd", "europe/berlin", "GMT+25", "\x00"]
)
def test_an_unknown_zone_is_refused(owner, timezone):
    with pytest.raises(InvalidInput) as refusal:
        create(owner, timezone=timezone)
    assert refusal.value.errors[0].field == "timezone"


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "nul\x00", "lone \ud800 surrogate"])
def test_a_bad_name_is_refused(owner, name):
    with pytest.raises(InvalidInput) as refusal:
        create(owner, name=name)
    assert refusal.value.errors[0].field == "name"


def test_renaming_keeps_the_slug_and_is_audited_with_both_values(owner):
    workspace = create(owner, name="Before")
    services.update_workspace(workspace, name="After", timezone="Asia/Kathmandu", acting_user=owner)
    workspace.refresh_from_db()
    assert (workspace.name, workspace.slug, str(workspace.timezone)) == ("After", "before", "Asia/Kathmandu")
    entry = AuditEntry.objects.get(action="workspace.changed")
    assert entry.data == {"name": ["Before", "After"], "timezone": ["Europe/Berlin", "Asia/Kathmandu"]}


def test_an_update_that_changes_nothing_leaves_no_entry(owner):
    workspace = create(owner, name="Same")
    services.update_workspace(workspace, name="Same", acting_user=owner)
    assert not AuditEntry.objects.filter(action="workspace.changed").exists()
