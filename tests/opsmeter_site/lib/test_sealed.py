"""Secrets at rest: unreadable without the key, readable under an earlier one."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from opsmeter_site.lib.sealed import Unreadable, seal, unseal


def test_what_is_sealed_can_be_read_and_does_not_show():
    sealed = seal("om_live_secret")
    assert "om_live" not in sealed
    assert unseal(sealed) == "om_live_secret"


def test_after_a_change_of_the_key_the_earlier_one_still_opens(settings):
    sealed = seal("secret")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", [settings.SECRET_KEY]
    assert unseal(sealed) == "secret"


def test_another_key_does_not_open(settings):
    sealed = seal("secret")
    settings.SECRET_KEY = "another"
    with pytest.raises(Unreadable):
        unseal(sealed)


def test_time_runs_out():
    start = datetime(2026, 6, 1, tzinfo=UTC)
    with time_machine.travel(start, tick=False):
        sealed = seal("secret")
    with time_machine.travel(start + timedelta(minutes=31), tick=False), pytest.raises(Unreadable):
        unseal(sealed, no_older_than=timedelta(minutes=30))


@pytest.mark.parametrize("text", ["", "nonsense", "gAAAAA" * 9])
def test_what_was_never_sealed_is_unreadable(text):
    with pytest.raises(Unreadable):
        unseal(text)
