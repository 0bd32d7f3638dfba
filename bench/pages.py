"""Pages on a large workspace: the time of each page on the server, at one and at five million events over 90 days.

The time is that of a whole request over loopback on a kept connection, one at a time, and what the database and the
templates take is all of it. The ratio of both sizes says how the time grows.
"""

import argparse
import http.client
import statistics
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.core.management import call_command
from django.db.models import Max, Min
from django.test import Client

from bench import pages_data
from bench.load import LoadError, granian
from billing.services import OpenedWorkspace, open_workspace
from ingest.explorer import Cursor, Position
from ingest.models import Event
from opsmeter_site.lib.clock import utc_now

SIZES = (1_000_000, 5_000_000)
ROUNDS_PER_PAGE = 15


@dataclass(frozen=True)
class Timed:
    """The times of one page in milliseconds, and how many bytes came over the wire, compressed."""

    times: list[float]
    size: int

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.times)


def run(options: argparse.Namespace) -> None:
    """Fill two workspaces, summarise them, and time every page on both in turn."""
    call_command("collectstatic", verbosity=0, interactive=False)
    opened = [_workspace(size) for size in SIZES]
    with granian("opsmeter_site.wsgi:application", "/healthz") as product:
        address = urlsplit(product.url)
        sessions = [_session(one) for one in opened]
        pages = [_pages(one) for one in opened]
        print(
            f"{'page':34}" + "".join(f"{f'{size:,}':>12}" for size in SIZES) + f"{'grows':>8}{'KiB':>7}   (median ms)"
        )
        for name in pages[0]:
            timed = [
                _time(address.netloc, each[name], session, options.rounds * ROUNDS_PER_PAGE)
                for each, session in zip(pages, sessions, strict=True)
            ]
            small, large = timed[0].median, timed[-1].median
            print(
                f"{name:34}{small:12.1f}{large:12.1f}{large / small:8.2f}{timed[-1].size / 1024:7.1f}",
                flush=True,
            )


def _workspace(size: int) -> OpenedWorkspace:
    opened = open_workspace(
        name=f"Pages {size}", plan_tier="enterprise", owner_email="bench@example.com", timezone="Europe/Berlin"
    )
    started = time.perf_counter()
    stored = pages_data.fill(opened.workspace.pk, size, now=utc_now())
    filled = time.perf_counter()
    call_command("summarise", workspace=opened.workspace.slug)
    done = time.perf_counter()
    print(f"{stored:,} events filled in {filled - started:.0f} s, summarised in {done - filled:.0f} s", flush=True)
    return opened


def _session(opened: OpenedWorkspace) -> str:
    browser = Client()
    browser.force_login(opened.owner)
    return f"sessionid={browser.session.session_key}"


def _pages(opened: OpenedWorkspace) -> dict[str, str]:
    """The pages by name; the explorer also in the middle, at the end, and with a filter that seldom matches."""
    start = f"/w/{opened.workspace.slug}/"
    return {
        "overview, 7 days": start,
        "overview, 30 days": f"{start}?range=30d",
        "overview, today": f"{start}?range=today",
        "overview, 30 days by user": f"{start}?range=30d&by=user",
        "what changed, 7 days": f"{start}investigate/",
        "what changed, 30 days": f"{start}investigate/?range=30d",
        "prompt versions, 30 days": f"{start}versions/",
        "requests, newest": f"{start}requests/",
        "requests, in the middle": f"{start}requests/?{_cursor_at(opened, 0.5)}",
        "requests, at the end": f"{start}requests/?{_cursor_at(opened, 0.999)}",
        "requests, one of 2,000 users": f"{start}requests/?user=user-1900",
        "requests, a model of 2 %": f"{start}requests/?model=ft%3Agpt-4o-mini%3Aacme%3Abench",
        "budgets": f"{start}settings/budgets/",
        "prices": f"{start}prices/",
        "unpriced": f"{start}prices/unpriced/",
    }


def _cursor_at(opened: OpenedWorkspace, depth: float) -> str:
    """The explorer's cursor at this share of the way from the newest event to the oldest."""
    events = Event.objects.filter(workspace_id=opened.workspace.pk)
    ends = events.aggregate(oldest=Min("occurred_at"), newest=Max("occurred_at"))
    moment = ends["newest"] - (ends["newest"] - ends["oldest"]) * depth
    return "cursor=" + Cursor(Position(moment, 0)).encode()


def _time(netloc: str, path: str, session: str, rounds: int) -> Timed:
    connection = http.client.HTTPConnection(netloc, timeout=60)
    times, size = [], 0
    for number in range(rounds + 2):
        started = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": session, "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        size = len(answer.read())
        if answer.status != 200:
            raise LoadError(f"{path} answered {answer.status}")
        if number >= 2:
            times.append((time.perf_counter() - started) * 1_000)
    connection.close()
    return Timed(times, size)
