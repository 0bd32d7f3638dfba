import multiprocessing

import pytest
from django.test import Client
from prometheus_client import CollectorRegistry, multiprocess

from ingest.metrics import UNPRICED

PATH = "/internal/metrics"
TOKEN = "scrape-me-please"


def scrape(token=None, accept=""):
    headers = {"Accept": accept}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return Client().get(PATH, headers=headers)


def test_outside_production_it_needs_no_token(settings):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = "", False
    response = scrape()
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"opsmeter_ingest_requests_total" in response.content
    assert "no-store" in response["Cache-Control"]


def test_in_production_without_a_token_it_does_not_exist(settings):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = "", True
    assert scrape().status_code == 404
    assert scrape("").status_code == 404


@pytest.mark.parametrize("production", [True, False])
def test_with_a_token_only_the_token_opens_it(settings, production):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = TOKEN, production
    assert scrape(TOKEN).status_code == 200
    for wrong in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "tökén"):
        assert scrape(wrong).status_code == 404


def test_it_speaks_openmetrics_when_asked(settings):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = "", False
    response = scrape(accept="application/openmetrics-text; version=1.0.0")
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


def test_it_only_reads(settings):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = "", False
    assert Client().post(PATH).status_code == 405


def _count_in_a_process(times):
    """Runs in a fresh process whose metrics go to files, as those of a server process do."""
    UNPRICED.inc(times)


def test_it_adds_up_all_server_processes(settings, tmp_path, monkeypatch):
    settings.METRICS_TOKEN, settings.IS_PRODUCTION = "", False
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    # The library decides at import time how it keeps values, so the counting happens in new interpreters.
    context = multiprocessing.get_context("spawn")
    for times in (2, 3):
        process = context.Process(target=_count_in_a_process, args=(times,))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert b"opsmeter_ingest_unpriced_events_total 5.0" in scrape().content
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    assert registry.get_sample_value("opsmeter_ingest_unpriced_events_total") == 5
