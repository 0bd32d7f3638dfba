"""A workspace's whole life as a customer, against `./opsmeter up` and the local double of the provider."""

import json
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE_MS, Watch, barriers, context_of, shoot, sign_in
from tests.up import run

LIFTED_WITHIN_SECONDS = 5.0


class Customer:
    """Somebody at the billing page, who looks at every state."""

    def __init__(self, product, page):
        self.product, self.page = product, page
        self.address = f"{product.url}/w/{product.billing_slug}/settings/billing/"
        self.pictures = 0

    def open(self):
        """The billing page, anew."""
        self.page.goto(self.address)

    def look(self):
        """A picture for the reader, and nothing that axe finds serious."""
        self.pictures += 1
        shoot(self.page, f"billing-{self.pictures:02d}")
        assert barriers(self.page) == []

    def sees(self, *texts):
        """The plan's card says so, by itself.

        The provider's word travels by a webhook, the worker's next look and the page's next look.
        """
        card = self.page.locator("section", has=self.page.get_by_role("heading", name="Plan", exact=True))
        for text in texts:
            expect(card).to_contain_text(text)
        self.look()

    def chooses(self, link, button):
        """A press on the page, and the second question answered with yes."""
        link.click()
        yes = self.page.get_by_role("button", name=button)
        expect(yes).to_be_visible()
        self.look()
        yes.click()


def test_from_checkout_to_the_end(product, chromium):
    context = context_of(chromium, 1280, "light")
    page = context.new_page()
    watch = Watch(page, product.url, product.sandbox_url)
    sign_in(page, product)
    customer = Customer(product, page)
    customer.open()
    customer.sees("Free")

    of_pro = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="Pro", exact=True))
    customer.chooses(of_pro.get_by_role("link", name="Subscribe"), "Go to the checkout")
    page.wait_for_url(f"{product.sandbox_url}/checkout/**")
    page.get_by_role("button", name="Pay $49").click()
    page.get_by_role("link", name="Continue").click()
    page.wait_for_url(customer.address)
    customer.sees("Pro", "Active", "Renews on", "4242")

    customer.chooses(page.get_by_role("link", name="Upgrade"), "Upgrade to Team")
    expect(page.get_by_role("heading", name="Change to Team")).to_be_visible()
    payments = page.get_by_role("link", name="All payments")
    payments.focus()
    customer.sees("Team", "Active")
    expect(payments).to_be_focused()

    cancel = page.get_by_role("link", name="Cancel subscription")
    customer.chooses(cancel, "Cancel the subscription")
    customer.sees("Cancelled", "Team stays usable until")
    customer.chooses(page.get_by_role("link", name="Resume subscription"), "Resume")
    customer.sees("Team", "Active", "Renews on")
    customer.chooses(cancel, "Cancel the subscription")
    customer.sees("Team stays usable until")

    page.goto(product.sandbox_url)
    page.get_by_role("button", name="Expire").first.click()
    page.wait_for_url("**/#subscription-*")
    customer.open()
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    while page.get_by_text("Ended", exact=True).count() == 0:
        assert time.monotonic() < deadline, "The end of the subscription did not arrive."
        page.reload()
    customer.sees("Free", "Ended")
    assert watch.problems == []
    context.close()


def test_an_upgrade_lifts_a_pause_within_seconds(product):
    opened = new_workspace(product)
    key, bearer = {"X-API-Key": opened["apiKey"]}, {"Authorization": f"Bearer {opened['bearerToken']}"}
    ingest = f"{product.url}/v1/ingest/llm-request"
    event = {"provider": "openai", "model": "gpt-4o-mini", "inputTokens": 1, "outputTokens": 1, "status": "success"}
    for _ in range(10):
        assert post(f"{ingest}s", {"events": [event] * 1_000}, **key)[0] == 200
    assert post(ingest, event, **key)[0] == 402

    status, checkout = post(f"{product.url}/v1/billing/checkout", {"planTier": "pro"}, **bearer)
    assert status == 201
    form = urlencode({"card": "good", "email": "buyer@example.com", "name": "Buyer"}).encode()
    urlopen(Request(checkout["checkoutUrl"], form), timeout=60).close()
    paid_at = time.monotonic()
    while post(ingest, event, **key)[0] != 200:
        assert time.monotonic() - paid_at < LIFTED_WITHIN_SECONDS
        time.sleep(0.1)  # few enough to stay below the plan's rate


def new_workspace(product):
    """A workspace on Free, with its secrets."""
    wanted = ("--name", "Busy", "--plan", "free", "--owner-email", "busy@example.com")
    made = run(product.data, "manage", "create_workspace", "--json", *wanted)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def post(url, body, **headers):
    """POST JSON: status and answer."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refusal:
        return refusal.code, json.load(refusal)
