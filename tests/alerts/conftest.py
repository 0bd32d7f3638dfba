"""What tests of alerts begin with."""

import pytest
import time_machine

from alerts.models import Alert
from ingest.models import LimitCrossing
from tests.alerts.receivers import receiver
from tests.alerts.telling import NOON
from tests.factories import make_cast, make_workspace


@pytest.fixture
def clock(db):
    """It stands still at noon, and nothing has happened: what tests with real commits left behind is not ours."""
    LimitCrossing.objects.filter(claimed_at=None).update(claimed_at=NOON)
    Alert.objects.all().delete()
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def cast(db):
    return make_cast("pro")


@pytest.fixture
def space(cast):
    return cast.workspace


@pytest.fixture
def opened(db):
    return make_workspace("pro")


@pytest.fixture
def workspace(opened):
    return opened.workspace


@pytest.fixture
def there(settings):
    """A receiver that channels may call."""
    with receiver() as running:
        settings.CHANNEL_HOSTS_ALLOWED = [running.host]
        yield running
