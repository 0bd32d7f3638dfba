"""Every page in a real browser: no scrolling sideways, nothing on top of anything, no barrier, no error, no stranger.

Pages are found the way a person finds them, by following links from the overview; each kind of page is looked at once,
at both widths and in both colour schemes.
"""

from dataclasses import dataclass
from urllib.parse import urldefrag, urlsplit

import pytest
from django.urls import Resolver404, resolve
from playwright.sync_api import expect

from opsmeter_site.console.urls import page_urlpatterns
from tests.browser.conftest import HEIGHTS, SCHEMES, Watch, barriers, context_of, shoot, sign_in

START = (
    "/w/demo/",
    "/w/demo/requests/?columns=all",
    # Explains something, and leads to a budget that can be changed and deleted, unlike those of the whole workspace.
    "/w/demo/budgets/explain/?tenant_id=acme&data_mode=demo",
    "/accounts/email/",
    "/docs/",
    "/outbox/",
    "/admin/",
    "/no/such/page/",
)
SIGNED_OUT = (
    "/accounts/login/",
    "/accounts/signup/",
    "/accounts/password/reset/",
    "/accounts/confirm-email/",
    "/docs/",
    "/invitations/om_inv_nothing_here/",
)
# Downloads, parts of pages that scripts ask for, and what only POST reaches.
NO_PAGE = {
    "exports-stream",
    "exports-jobs",
    "export-download",
    "export-about",
    "export-cancel",
    "export-retry",
    "requests-more",
    "requests-values",
    "repricing-again",
    "settings-audit-csv",
    "settings-billing-pending",
    "settings-billing-portal",
    "settings-budgets-preview",
    "budget-adjust",
    "budget-lease-release",
    "budget-raise",
    "budget-raise-end",
    "budgets-values",
    "settings-data-demo",
    "settings-data-state",
    "settings-invitation-resend",
    "alert-change",
    "alert-note",
    "alerts-change",
    "delivery-retry",
    "settings-channel-pause",
    "settings-channel-resume",
    "settings-channel-test",
    "settings-recipient-ask",
    "settings-recipient-lift",
    "settings-recipient-roles",
    "settings-recipients-mine",
    "settings-summaries-asked",
    "settings-summary",
    "settings-summary-moments",
    "settings-summary-preview",
    "settings-summary-send",
}
# Reached only where there is something that the demo workspace does not have; tests of their own look at them.
SELDOM = {
    "export-delete",
    "price-alias",
    "price-own-new",
    "price-own-withdraw",
    "repricing",
    "repricing-cancel",
    "repricing-run",
    "settings-billing-cancel",
    "settings-billing-change",
    "settings-billing-checkout",
    "settings-billing-payments",
    "settings-billing-resume",
    "settings-member-remove",
    "settings-member-role",
    "settings-invitation-revoke",
    "settings-channel-address",
    "settings-channel-delete",
    "settings-channel-rotate",
    "settings-recipient-remove",
    "settings-rule",
    "settings-rule-delete",
}
# A page of each kind of the operators' console; its lists and forms are stock Django.
ADMIN = {"index", "support", "support-search", "workspaces_workspace_changelist", "workspaces_workspace_change"}
# Once light and wide, once dark and narrow: structure is the same in all four, colours and folding are not.
AXE_LOOKS = {(1280, "light"), (390, "dark")}
_ERROR_PAGE = "Failed to load resource: the server responded with a status of 404"
# Buttons, links and fields that lie on top of each other; what is scrolled away or hidden is left out.
OVERLAPS = """
() => {
  const kinds = "main a, main button, main input, main select, header a, header summary";
  const unseen = ".table-scroll, details:not([open]) > :not(summary), svg, .visually-hidden, pre, .snippet";
  const items = [...document.querySelectorAll(kinds)];
  const boxes = items.flatMap((item) => {
    if (item.closest(unseen)) return [];
    if (!item.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return [];
    return [...item.getClientRects()].map((box) => ({ item, box }));
  });
  const found = [];
  for (const [number, one] of boxes.entries()) {
    for (const other of boxes.slice(number + 1)) {
      if (one.item.contains(other.item) || other.item.contains(one.item)) continue;
      const wide = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      const high = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
      if (wide > 2 && high > 2) found.push(`${one.item.outerHTML.slice(0, 80)} | ${other.item.outerHTML.slice(0, 80)}`);
    }
  }
  return found;
}
"""
UNSTYLED = "() => getComputedStyle(document.body).marginTop !== '0px' || document.styleSheets.length === 0"


def name_of(address):
    """The name of the page at an address; None where it is nobody's business."""
    path = urlsplit(address).path
    try:
        match = resolve(path)
    except Resolver404:
        return "404" if path == "/no/such/page/" else None
    name = match.url_name
    if path.startswith("/admin/"):
        return f"admin:{name}" if name in ADMIN else None
    if path.startswith("/docs/"):
        return path
    if name == "account_logout" or name in NO_PAGE or path.startswith("/v1/"):
        return None
    return name


@dataclass
class Tour:
    """Every kind of page: its name and address, and what is wrong by address."""

    pages: dict[str, str]
    wrong: dict[str, list[str]]


def walk(page, watch, product):
    """Visit one address of each kind of page, and look at it."""
    tour, waiting = Tour({}, {}), list(START)
    # The demo workspace's budget is past its warning: a worker tells it within a second of having started.
    page.goto(f"{product.url}/w/demo/alerts/")
    expect(page.locator(".alert-title a").first).to_be_visible()
    while waiting:
        address = waiting.pop(0)
        name = name_of(address)
        if name is None or name in tour.pages:
            continue
        tour.pages[name] = address
        if problems := look_at(page, watch, product, name, address):
            tour.wrong[address] = problems
        links = page.eval_on_selector_all("a[href]", "links => links.map((link) => link.href)")
        waiting += [urldefrag(link)[0].removeprefix(product.url) for link in links if link.startswith(product.url)]
    return tour


@pytest.fixture(scope="module")
def tour(product, chromium):
    """The demo workspace's owner, who has seen everything."""
    context = context_of(chromium, 1280, "light")
    page = context.new_page()
    watch = Watch(page, product.url)
    sign_in(page, product)
    seen = walk(page, watch, product)
    context.close()
    return seen


def look_at(page, watch, product, name, address):
    """What is wrong with one page, at each width and in each colour scheme. It folds by CSS alone, so one load does."""
    watch.problems.clear()
    page.goto(product.url + address)
    expect(page.locator(".htmx-request")).to_have_count(0)
    problems = [problem for width in HEIGHTS for scheme in SCHEMES for problem in look_in(page, name, width, scheme)]
    problems += [problem for problem in watch.problems if name != "404" or _ERROR_PAGE not in problem]
    if page.title().strip() in {"", "Opsmeter"}:
        problems.append("no title")
    return problems


def look_in(page, name, width, scheme):
    """What is wrong with the page that is open, at a width and in a colour scheme."""
    page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
    page.emulate_media(color_scheme=scheme)
    shoot(page, f"{name.strip('/').replace('/', '-')}-{width}-{scheme}")
    problems = []
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if beyond > 0:
        problems.append(f"{beyond} px too wide")
    if page.evaluate(UNSTYLED):
        problems.append("unstyled")
    if not name.startswith("admin:"):
        problems += [f"overlap: {overlap}" for overlap in page.evaluate(OVERLAPS)]
        if (width, scheme) in AXE_LOOKS:
            problems += [f"axe {barrier}" for barrier in barriers(page)]
    return [f"{width} {scheme}: {problem}" for problem in problems]


def test_every_page_can_be_reached_by_links(tour):
    assert {pattern.name for pattern in page_urlpatterns} - NO_PAGE - SELDOM - set(tour.pages) == set()


def test_nothing_is_wrong_with_any_page(tour):
    assert tour.wrong == {}


def test_nothing_is_wrong_with_pages_for_people_who_are_not_signed_in(product, chromium):
    context = context_of(chromium, 1280, "light")
    page = context.new_page()
    watch = Watch(page, product.url)
    wrong = {}
    for address in SIGNED_OUT:
        name = "404" if "nothing" in address else address
        if problems := look_at(page, watch, product, name, address):
            wrong[address] = problems
    context.close()
    assert wrong == {}


def test_a_first_page_view_is_small(product, chromium):
    context = context_of(chromium, 1280, "light")
    page = context.new_page()
    sign_in(page, product)
    cookies = context.cookies()
    context.close()
    fresh = context_of(chromium, 1280, "light")
    fresh.add_cookies(cookies)
    page = fresh.new_page()
    session = fresh.new_cdp_session(page)
    session.send("Network.enable")
    sizes = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{product.url}/w/demo/?range=30d")
    page.wait_for_load_state("networkidle")
    fresh.close()
    assert sum(sizes) < 100_000, sizes
