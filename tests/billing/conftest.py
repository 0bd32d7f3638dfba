"""What tests of the console's billing pages stand on."""

import pytest
from django.urls import reverse

from billing.models import PlanVariant
from tests.billing.asked import asked_provider
from tests.billing.asking import ZONE
from tests.factories import make_cast
from tests.pages import page, signed_in


@pytest.fixture
def shop(committed, monkeypatch, settings):
    settings.LEMONSQUEEZY_API_KEY = "key"
    with asked_provider(monkeypatch) as asked:
        for tier, price in (("starter", "$19 a month"), ("pro", "$49 a month"), ("team", "$199 a month")):
            PlanVariant.objects.filter(plan=tier, interval="month").update(price_text=price)
        PlanVariant.objects.filter(plan="pro", interval="year").update(price_text="$490 a year")
        yield asked


@pytest.fixture
def cast(shop):
    return make_cast("free", timezone=ZONE)


@pytest.fixture
def browser(cast):
    return signed_in(cast.admin)


@pytest.fixture
def address(cast):
    def of(name="settings-billing", *arguments):
        return reverse(name, args=[cast.workspace.slug, *arguments])

    return of


@pytest.fixture
def shown(browser, address):
    """The page's main part, as an admin sees it."""

    def look(query=""):
        response = browser.get(address() + query)
        assert response.status_code == 200
        return page(response).one("main")

    return look
