"""A real Chromium against `./opsmeter up`. Without Chromium on the machine these tests are skipped, and say so."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.up import Up, processes_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# For failures alone: two busy cores show nothing quickly.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
HEIGHTS = {1280: 900, 390: 844}  # by width, in pixels: a laptop and a phone
SCHEMES = ("light", "dark")


@dataclass(frozen=True)
class Product:
    """A running installation with its demo workspace, and what signs in to it."""

    url: str
    email: str
    password: str
    slug: str
    api_key: str
    billing_slug: str
    sandbox_url: str
    data: Path


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`./opsmeter up --billing-sandbox` in a fresh data folder; `test_up.py` ends it, after all the others."""
    running = Up(tmp_path_factory.mktemp("up") / "data", "--billing-sandbox")
    yield running
    if running.is_running():
        running.stop()
    assert processes_of(running.data) == []


@pytest.fixture(scope="session")
def product(up: Up) -> Product:
    """What the ready file says of it."""
    facts = up.ready
    return Product(
        facts["url"],
        facts["email"],
        facts["password"],
        facts["workspaceSlug"],
        facts["apiKey"],
        facts["billingWorkspaceSlug"],
        facts["billingSandboxUrl"],
        up.data,
    )


# Not for the whole session: while it runs, Playwright's event loop keeps Django from its database.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watch:
    """What must never happen on a page: console errors, refused resources, requests that leave the host."""

    def __init__(self, page: Page, *hosts: str) -> None:
        self.problems: list[str] = []
        page.on("console", lambda message: self._console(message))
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("request", lambda request: self._request(request.url, hosts))

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, url: str, hosts: tuple[str, ...]) -> None:
        if not url.startswith((*hosts, "data:", "blob:")):
            self.problems.append(f"left the host: {url}")


def context_of(chromium: Browser, width: int, scheme: Any) -> BrowserContext:
    """A fresh browser profile; copying is allowed as a person would allow it."""
    context = chromium.new_context(
        viewport={"width": width, "height": HEIGHTS[width]},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(PATIENCE_MS)
    return context


def sign_in(page: Page, product: Product) -> None:
    """Through the sign-in page, as the demo workspace's owner."""
    page.goto(f"{product.url}/accounts/login/")
    page.get_by_label("E-mail").fill(product.email)
    page.get_by_label("Password", exact=True).fill(product.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{product.url}/w/**")


_AXE = Axe().axe_script
# Only what is found comes back: what passes is many times as much.
_BARRIERS = """
async () => {
  const { violations } = await axe.run({ resultTypes: ["violations"] });
  const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  return grave.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 150)}`);
}
"""


def barriers(page: Page) -> list[str]:
    """What axe finds serious or critical on the page that is open: the rule, and the first element."""
    page.wait_for_load_state()
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_AXE)
    found: list[str] = page.evaluate(_BARRIERS)
    return found


# Screenshots are for the reader of a failed run, and never in the repository.
SHOTS = os.environ.get("OPSMETER_SHOTS")


def shoot(page: Page, name: str) -> None:
    """Keep a picture where the environment asks for one."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
