"""A message that comes again while it is being processed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction

from billing.inbox import receive
from billing.models import BillingEvent
from tests.billing.messages import deliver, message, open_shop, sign
from tests.billing.provider_facts import facts
from tests.races import alone

PATIENCE_SECONDS = 30


@pytest.mark.usefixtures("committed")
def test_a_repeat_does_not_wait_for_the_first_to_be_processed(monkeypatch, settings):
    """Processing holds the event while the provider is asked, and the repeat's sender must be answered at once."""
    open_shop(monkeypatch, settings)
    body = message(facts("96001"))
    event = deliver(body)
    with ThreadPoolExecutor(1) as threads, transaction.atomic():
        BillingEvent.objects.select_for_update().get(pk=event.pk)
        repeated = threads.submit(alone, lambda: receive(body, sign(body)))
        assert repeated.result(PATIENCE_SECONDS) is False
    assert BillingEvent.objects.filter(dedupe_key=event.dedupe_key).count() == 1
    event.delete()
