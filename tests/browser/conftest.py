"""A real Chromium against `./opsmeter up`. Without Chromium on the machine these tests are skipped, and say so."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from opsmeter_site.embedded.processes import ROOT
from tests.test_launcher import environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_START_SECONDS = 120
WIDTHS = (1280, 390)
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
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """`./opsmeter up --billing-sandbox` in a data folder of its own."""
    data = tmp_path_factory.mktemp("up")
    ready = data / "ready.json"
    said = data / "up.log"
    with said.open("w") as output:
        process = subprocess.Popen(
            [str(ROOT / "opsmeter"), "up", "--port", "0", "--billing-sandbox", "--ready-file", str(ready)],
            env=environment(data),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _wait_for(ready, process, said)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(ready: Path, process: "subprocess.Popen[bytes]", said: Path) -> Product:
    deadline = time.monotonic() + _START_SECONDS
    while not ready.exists():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, "./opsmeter up did not serve in time"
        time.sleep(0.1)
    facts = json.loads(ready.read_text())
    return Product(
        facts["url"],
        facts["email"],
        facts["password"],
        facts["workspaceSlug"],
        facts["apiKey"],
        facts["billingWorkspaceSlug"],
        facts["billingSandboxUrl"],
        ready.parent,
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
    height = 900 if width > 600 else 844
    return chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
        timezone_id="Europe/Berlin",
    )


def sign_in(page: Page, product: Product) -> None:
    """Through the sign-in page, as the demo workspace's owner."""
    page.goto(f"{product.url}/accounts/login/")
    page.get_by_label("E-mail").fill(product.email)
    page.get_by_label("Password", exact=True).fill(product.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{product.url}/w/**")


# Screenshots are for the reader of a failed run, and never in the repository.
SHOTS = os.environ.get("OPSMETER_SHOTS")


def shoot(page: Page, name: str) -> None:
    """Keep a picture where the environment asks for one."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
