"""The double as a process: what it refuses, and that a restart forgets nothing."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from billing.sandbox.__main__ import main
from billing.sandbox.shop import BAD_CARD
from tests.billing.sandbox.running import open_shop
from tests.servers import ROOT, free_port

ENVIRONMENT = {
    "OPSMETER_ENV": "test",
    "LEMONSQUEEZY_API_KEY": "sandbox-key",
    "LEMONSQUEEZY_WEBHOOK_SECRET": "sandbox-secret",
    "LEMONSQUEEZY_STORE_ID": "1",
}
HOOK = "http://127.0.0.1:9/hook"


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEMON", "OPSMETER"))}
    return subprocess.Popen(
        [sys.executable, "-m", "billing.sandbox", *arguments],
        cwd=ROOT,
        env=clean | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "arguments", "reason"),
    [
        ({"OPSMETER_ENV": "production"}, [], "OPSMETER_ENV"),
        ({"OPSMETER_ENV": ""}, [], "OPSMETER_ENV"),
        ({}, ["--host", "0.0.0.0"], "this machine only"),
        ({}, ["--host", "192.0.2.1"], "this machine only"),
        ({}, ["--webhook-url", "http://192.0.2.1/hook"], "loopback"),
        ({}, ["--webhook-url", "https://example.com/hook"], "loopback"),
        ({"LEMONSQUEEZY_API_KEY": ""}, [], "LEMONSQUEEZY_API_KEY"),
        ({"LEMONSQUEEZY_STORE_ID": "shop"}, [], "must be a number"),
    ],
)
def test_it_refuses_to_start_outside_development_and_beyond_this_machine(
    environment: dict[str, str],
    arguments: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (ENVIRONMENT | environment).items():
        monkeypatch.setenv(name, value)
    assert main(["--port", "1", "--webhook-url", HOOK, *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_it_serves_and_stops_cleanly(tmp_path: Path) -> None:
    port = free_port()
    process = start(ENVIRONMENT, "--port", str(port), "--webhook-url", HOOK, "--data", str(tmp_path / "data"))
    url, key = f"http://127.0.0.1:{port}/v1/users/me", {"Authorization": "Bearer sandbox-key"}
    end = time.monotonic() + 30
    while True:
        try:
            assert httpx2.get(url, headers=key, trust_env=False).status_code == 200
            break
        except httpx2.ConnectError:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    file = tmp_path / "data" / "sandbox.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"
    before = open_shop(data_file=file)
    checkout = before.create_checkout(201, checkout_data={"email": "ann@example.com", "custom": {"a": "b"}})
    subscription_id = before.pay(checkout.id)
    before.update_card(subscription_id, BAD_CARD)
    before.advance(timedelta(days=33))
    before.set_faults(shuffle=True, api_trouble="429", api_trouble_calls=3)
    before.set_settings(trial_days=7)

    after = open_shop(data_file=file)
    assert after.subscription(subscription_id) == before.subscription(subscription_id)
    assert after.subscription(subscription_id).status == "past_due"
    assert (after.checkouts(), after.invoices(), after.orders()) == (
        before.checkouts(),
        before.invoices(),
        before.orders(),
    )
    assert (after.faults, after.settings) == (before.faults, before.settings)
    assert abs(after.clock.offset - before.clock.offset) <= timedelta(seconds=1)
    assert after.deliveries.log() == before.deliveries.log()
    assert after.deliveries.take() == before.deliveries.take()
    # Links that were given out are still good, and no id is given twice.
    assert after.portal_urls(after.subscription(subscription_id)).keys()
    assert after.pay(checkout.id) > max(delivery.id for delivery in before.deliveries.log())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"offset_seconds"', '"offset"'),
        lambda text: text.replace('"duplicate"', '"a_fault_of_old"'),
        lambda text: text.replace('"trial_days"', '"a_setting_of_old"'),
        lambda text: text.replace('"email"', '"a_column_of_old"'),
    ],
    ids=["cut off", "something else", "no clock", "older faults", "older settings", "older records"],
)
def test_what_it_cannot_read_is_set_aside_and_it_begins_anew(
    spoil: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "sandbox.json"
    before = open_shop(data_file=file)
    before.pay(before.create_checkout(201, checkout_data={"email": "ann@example.com"}).id)
    before.advance(timedelta(days=33))
    spoilt = spoil(file.read_text())
    assert spoilt != file.read_text()
    file.write_text(spoilt)

    after = open_shop(data_file=file)
    assert (after.orders(), after.checkouts()) == ([], [])
    assert after.clock.now() < before.clock.now() - timedelta(days=30)
    assert (tmp_path / "sandbox.json.unreadable").read_text() == spoilt
    assert "sandbox.json.unreadable: the store begins empty" in caplog.text
    # And it remembers again.
    after.create_checkout(201)
    assert len(open_shop(data_file=file).checkouts()) == 1
