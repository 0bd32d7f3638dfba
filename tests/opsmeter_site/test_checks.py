import pytest
from django.conf import settings as site_settings

from opsmeter_site import checks

GOOD = {
    "IS_PRODUCTION": True,
    "DEBUG": False,
    "SECRET_KEY": "k" * 50,
    "ALLOWED_HOSTS": ["opsmeter.example"],
    "METRICS_TOKEN": "t" * 20,
}


def ids(settings, **changes):
    for name, value in (GOOD | changes).items():
        setattr(settings, name, value)
    messages = [*checks.check_time(None), *checks.check_debug(None), *checks.check_production(None)]
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_a_proper_production_is_clean(settings):
    assert ids(settings) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"TIME_ZONE": "Europe/Berlin"}, ["opsmeter.E001"]),
        ({"USE_TZ": False}, ["opsmeter.E001"]),
        ({"CELERY_TIMEZONE": "Europe/Berlin"}, ["opsmeter.E001"]),
        ({"DEBUG": True}, ["opsmeter.E002"]),
        ({"SECRET_KEY": "short"}, ["opsmeter.E003"]),
        ({"SECRET_KEY": "only-for-tests"}, ["opsmeter.E003"]),
        ({"ALLOWED_HOSTS": []}, ["opsmeter.W001"]),
        ({"ALLOWED_HOSTS": ["opsmeter.example", "*"]}, ["opsmeter.W001"]),
        ({"METRICS_TOKEN": ""}, ["opsmeter.W002"]),
    ],
)
def test_each_mistake_is_named(settings, changes, found):
    # Django itself reacts to a changed time zone; these two are put back by hand-made settings only.
    assert ids(settings, **changes) == found


def test_elsewhere_nothing_is_asked(settings):
    assert ids(settings, IS_PRODUCTION=False, DEBUG=True, SECRET_KEY="x", ALLOWED_HOSTS=[], METRICS_TOKEN="") == []


def test_the_suite_itself_counts_in_utc():
    assert site_settings.TIME_ZONE == "UTC"
