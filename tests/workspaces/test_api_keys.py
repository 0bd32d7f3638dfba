from datetime import timedelta

import pytest
import time_machine

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from opsmeter_site.lib.redis import client, epoch_key
from tests.factories import UserFactory, make_workspace
from workspaces import services
from workspaces.keys import ApiKeyIdentity, authenticate_api_key
from workspaces.models import ApiKey, AuditEntry

pytestmark = pytest.mark.django_db

START = "2026-03-10T12:00:00Z"


@pytest.fixture
def opened():
    return make_workspace()


@pytest.fixture
def key(opened):
    return opened.api_key


def test_a_live_key_names_its_workspace_and_creator(opened):
    assert authenticate_api_key(opened.api_key_plain) == ApiKeyIdentity(
        key_id=opened.api_key.pk,
        workspace_id=opened.workspace.pk,
        created_by_id=opened.owner.pk,
        expires_at=None,
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: "",
        lambda plain: "nonsense",
        lambda plain: plain + "a",
        lambda plain: plain[:-1],
        lambda plain: plain[:-1] + ("a" if plain[-1] != "a" else "b"),
        lambda plain: plain.replace("om_live", "om_pat"),
        lambda plain: plain + "\n",
        lambda plain: " " + plain,
        lambda plain: plain[:-1] + "\x00",
        lambda plain: plain[:-1] + "é",
        lambda plain: "om_live_AAAAAAAA_" + "A" * 32,
        lambda plain: plain * 1_000,
    ],
)
def test_malformed_and_unknown_secrets_are_refused(opened, damage):
    assert authenticate_api_key(damage(opened.api_key_plain)) is None


def test_an_access_token_is_no_api_key(opened):
    assert authenticate_api_key(opened.access_token_plain) is None


def test_a_revoked_key_is_refused_with_every_secret_it_had(opened, key):
    rotated = services.rotate_api_key(key, acting_user=opened.owner)
    services.revoke_api_key(key, acting_user=opened.owner)
    assert authenticate_api_key(opened.api_key_plain) is None
    assert authenticate_api_key(rotated) is None


def test_a_key_is_refused_from_the_moment_of_its_expiry(opened):
    with time_machine.travel(START, tick=False) as clock:
        expires_at = utc_now() + timedelta(hours=1)
        _, plain = services.create_api_key(
            opened.workspace, name="Short", created_by=opened.owner, expires_at=expires_at, acting_user=opened.owner
        )
        clock.shift(timedelta(minutes=59, seconds=59))
        assert authenticate_api_key(plain).expires_at == expires_at
        clock.shift(timedelta(seconds=1))
        assert authenticate_api_key(plain) is None


def test_rotation_keeps_the_key_and_lets_the_old_secret_live_for_a_day(opened, key):
    with time_machine.travel(START, tick=False) as clock:
        plain = services.rotate_api_key(key, acting_user=opened.owner)
        old = authenticate_api_key(opened.api_key_plain)
        assert old.expires_at == utc_now() + timedelta(hours=24)
        assert authenticate_api_key(plain) == ApiKeyIdentity(old.key_id, old.workspace_id, old.created_by_id, None)
        assert old.key_id == key.pk
        clock.shift(timedelta(hours=24))
        assert authenticate_api_key(opened.api_key_plain) is None
        assert authenticate_api_key(plain) is not None


def test_an_old_secret_never_outlives_its_key(opened):
    with time_machine.travel(START, tick=False):
        expires_at = utc_now() + timedelta(hours=1)
        key, plain = services.create_api_key(
            opened.workspace, name="Short", created_by=opened.owner, expires_at=expires_at, acting_user=opened.owner
        )
        services.rotate_api_key(key, timedelta(hours=24), acting_user=opened.owner)
        assert authenticate_api_key(plain).expires_at == expires_at


def test_without_grace_the_old_secret_is_refused_at_once(opened, key):
    services.rotate_api_key(key, timedelta(0), acting_user=opened.owner)
    assert authenticate_api_key(opened.api_key_plain) is None


def test_a_second_rotation_ends_the_first_ones_grace(opened, key):
    first = services.rotate_api_key(key, acting_user=opened.owner)
    second = services.rotate_api_key(key, acting_user=opened.owner)
    assert authenticate_api_key(opened.api_key_plain) is None
    assert authenticate_api_key(first) is not None
    assert authenticate_api_key(second) is not None


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=30, seconds=1), timedelta.max])
def test_an_absurd_grace_is_refused(opened, key, grace):
    with pytest.raises(InvalidInput) as refusal:
        services.rotate_api_key(key, grace, acting_user=opened.owner)
    assert refusal.value.errors[0].field == "grace"
    assert authenticate_api_key(opened.api_key_plain).expires_at is None


def test_a_dead_key_gets_no_new_secret(opened, key):
    with time_machine.travel(START, tick=False) as clock:
        short, _ = services.create_api_key(
            opened.workspace,
            name="Short",
            created_by=opened.owner,
            expires_at=utc_now() + timedelta(hours=1),
            acting_user=opened.owner,
        )
        clock.shift(timedelta(hours=1))
        with pytest.raises(NotAllowed):
            services.rotate_api_key(short, acting_user=opened.owner)
    services.revoke_api_key(key, acting_user=opened.owner)
    with pytest.raises(NotAllowed):
        services.rotate_api_key(key, acting_user=opened.owner)


def test_last_use_is_stored_at_most_once_a_minute(opened, key, django_assert_num_queries):
    with time_machine.travel(START, tick=False) as clock:
        first = utc_now()
        with django_assert_num_queries(2):
            authenticate_api_key(opened.api_key_plain)
        clock.shift(timedelta(seconds=59))
        with django_assert_num_queries(1):
            authenticate_api_key(opened.api_key_plain)
        key.refresh_from_db()
        assert key.last_used_at == first
        clock.shift(timedelta(seconds=1))
        authenticate_api_key(opened.api_key_plain)
        key.refresh_from_db()
        assert key.last_used_at == first + timedelta(minutes=1)


def test_a_refused_secret_leaves_no_trace_of_use(opened, key):
    authenticate_api_key(opened.api_key_plain[:-1] + "é")
    services.revoke_api_key(key, acting_user=opened.owner)
    authenticate_api_key(opened.api_key_plain)
    key.refresh_from_db()
    assert key.last_used_at is None


def test_two_live_keys_cannot_share_a_name_but_a_revoked_one_frees_it(opened, key):
    def create():
        return services.create_api_key(
            opened.workspace, name="Default", created_by=opened.owner, acting_user=opened.owner
        )

    with pytest.raises(InvalidInput) as refusal:
        create()
    assert refusal.value.errors[0].field == "name"
    services.revoke_api_key(key, acting_user=opened.owner)
    create()


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "nul\x00", "line\nbreak"])
def test_a_bad_name_is_refused(opened, name):
    with pytest.raises(InvalidInput) as refusal:
        services.create_api_key(opened.workspace, name=name, created_by=opened.owner, acting_user=opened.owner)
    assert refusal.value.errors[0].field == "name"


def test_an_expiry_in_the_past_or_without_zone_is_refused(opened):
    for moment in (utc_now() - timedelta(seconds=1), (utc_now() + timedelta(days=1)).replace(tzinfo=None)):
        with pytest.raises(InvalidInput) as refusal:
            services.create_api_key(
                opened.workspace, name="Bad", created_by=opened.owner, expires_at=moment, acting_user=opened.owner
            )
        assert refusal.value.errors[0].field == "expires_at"


def test_the_expiry_of_a_live_key_can_be_moved_and_taken_away(opened, key):
    moment = utc_now() + timedelta(days=1)
    services.change_api_key_expiry(key, moment, acting_user=opened.owner)
    assert authenticate_api_key(opened.api_key_plain).expires_at == moment
    services.change_api_key_expiry(key, None, acting_user=opened.owner)
    assert authenticate_api_key(opened.api_key_plain).expires_at is None
    services.revoke_api_key(key, acting_user=opened.owner)
    with pytest.raises(NotAllowed):
        services.change_api_key_expiry(key, None, acting_user=opened.owner)


@pytest.mark.parametrize(
    ("change", "action"),
    [
        (lambda key, user: services.rotate_api_key(key, acting_user=user), "api_key.rotated"),
        (lambda key, user: services.revoke_api_key(key, acting_user=user), "api_key.revoked"),
        (lambda key, user: services.change_api_key_expiry(key, None, acting_user=user), "api_key.expiry_changed"),
        (
            lambda key, user: services.create_api_key(key.workspace, name="New", created_by=user, acting_user=user),
            "api_key.created",
        ),
    ],
)
def test_every_change_is_audited_without_secret_and_announced_after_the_commit(
    opened, key, change, action, django_capture_on_commit_callbacks
):
    actor = UserFactory()
    epoch = epoch_key(opened.workspace.pk)
    client().set(epoch, 5)
    with django_capture_on_commit_callbacks(execute=True):
        change(key, actor)
        assert int(client().get(epoch)) == 5
    assert int(client().get(epoch)) == 6
    client().delete(epoch)
    entry = AuditEntry.objects.get(action=action, actor=actor)
    assert entry.workspace == opened.workspace
    for stored in ApiKey.objects.all():
        assert bytes(stored.digest).hex() not in f"{entry.target}{entry.data}"
    assert opened.api_key_plain not in f"{entry.target}{entry.data}"


def test_revoking_twice_changes_nothing(opened, key):
    services.revoke_api_key(key, acting_user=opened.owner)
    key.refresh_from_db()
    first = key.revoked_at
    services.revoke_api_key(key, acting_user=opened.owner)
    key.refresh_from_db()
    assert key.revoked_at == first
    assert AuditEntry.objects.filter(action="api_key.revoked").count() == 1


def test_no_plain_secret_is_stored(opened, key):
    secret = opened.api_key_plain.rsplit("_", 1)[1]
    stored = ApiKey.objects.filter(pk=key.pk).values().get()
    assert secret not in str({name: bytes(value) if name == "digest" else value for name, value in stored.items()})
