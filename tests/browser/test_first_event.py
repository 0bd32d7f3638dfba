"""A new person, from signing up to the first priced event on the overview: under two minutes, at most ten clicks."""

import json
import subprocess
import sys
import time

from playwright.sync_api import expect

from tests.browser.conftest import Watch, context_of, shoot

MOST_CLICKS = 10
MOST_SECONDS = 120


def test_from_signing_up_to_the_first_priced_event(product, chromium):
    context = context_of(chromium, 1280, "light")
    page = context.new_page()
    watch = Watch(page, product.url)
    clicks = 0

    def click(target):
        nonlocal clicks
        clicks += 1
        shoot(page, f"first-{clicks}")
        target.click()

    started = time.monotonic()
    page.goto(product.url)
    click(page.get_by_role("link", name="Create an account"))
    page.get_by_label("E-mail").fill("newcomer@example.com")
    page.get_by_label("Password", exact=True).fill("a-long-and-quiet-street")
    click(page.get_by_role("button", name="Create"))
    click(page.get_by_role("main").get_by_role("link", name="outbox"))
    click(page.get_by_role("main").get_by_role("link", name="Confirm").first)
    click(page.get_by_role("link", name="/accounts/confirm-email/"))
    click(page.get_by_role("button", name="Confirm"))

    page.get_by_label("Name of the workspace").fill("Newcomer’s chat")
    expect(page.get_by_label("Timezone")).to_have_value("Europe/Berlin")
    click(page.get_by_role("button", name="Create workspace"))

    click(page.get_by_role("tab", name="Python"))
    snippet = page.locator("#snippet-python").text_content()
    answer = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout)["ok"] is True
    page.get_by_role("heading", name="Everything is in place").wait_for()
    click(page.get_by_role("link", name="See what costs what"))
    spend = page.locator("li.tile", has_text="Spend").first
    expect(spend.locator(".tile-value")).to_have_attribute("title", "$0.00036")
    shoot(page, "first-overview")

    assert clicks <= MOST_CLICKS
    assert time.monotonic() - started < MOST_SECONDS
    assert watch.problems == []
    context.close()
