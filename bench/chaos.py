"""Every crossing and every summary arrives exactly once at an idempotent receiver, whatever is killed.

For five minutes budgets are crossed through the real server and daily summaries fall due, while four workers and two
beats are killed with SIGKILL at random moments and Redis is killed twice. Afterwards everything must have arrived, each
under one id, and nothing may be under way for longer than two minutes after the last kill.
"""

import argparse
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from alerts.models import UNDER_WAY, Alert, AlertSettings, Delivery, Report, ReportKind, ReportState
from alerts.schedules import ensure_schedules, place
from bench.alerts import open_to_cross, post_event
from bench.load import LoadError
from bench.receiving import Receiver, receiver
from bench.stack import HOST, Stack, stack, wait_served, wait_until
from billing.services import OpenedWorkspace
from ingest.models import LimitCrossing
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import DAY
from workspaces.models import Workspace

CROSSINGS_PER_SECOND = 2  # of workspaces; the event of each crosses two thresholds, of which the higher is told
THRESHOLDS = 2
WORKERS = {"alerts": 2, "reports": 2, "beat": 2}
# So many times `--seconds`: five minutes, unless told otherwise.
LENGTH = 50
REDIS_KILLS = 2
PAUSE_SECONDS = (1.0, 5.0)
MOST_SECONDS_AFTER = 120.0
# Long enough that kills come between a message's arrival and the note of it.
RECEIVER_PAUSE_SECONDS = 0.3


def run(options: argparse.Namespace) -> None:
    """Kill for so long, wait until nothing is under way, and count what arrived."""
    seconds = options.seconds * LENGTH
    with receiver(pause_seconds=RECEIVER_PAUSE_SECONDS) as hook, stack(own_redis=True) as running:
        opened = [_prepared(number, hook, seconds) for number in range(seconds * CROSSINGS_PER_SECOND)]
        running.start(web=1, **WORKERS)
        wait_served(running)
        sender = threading.Thread(target=_cross, args=(running, opened, seconds))
        sender.start()
        kills = _kill(running, seconds)
        sender.join()
        print(f"{seconds} s: killed {', '.join(f'{name} {number} ×' for name, number in sorted(kills.items()))}")
        workspaces = [each.workspace for each in opened]
        running.revive()
        after = wait_until(lambda: _is_quiet(workspaces), MOST_SECONDS_AFTER, "Something is still under way.")
        print(f"nothing under way {after:.0f} s after the last kill")
        _check(workspaces, hook)


def _prepared(number: int, hook: Receiver, seconds: int) -> OpenedWorkspace:
    """A workspace that is about to cross its budget, and is owed a daily summary within the time."""
    opened = open_to_cross(f"Chaos {number}", hook.url)
    workspace, now = opened.workspace, utc_now()
    AlertSettings.objects.create(workspace=workspace, cooldown_seconds=0)
    ensure_schedules(workspace, now)
    daily = workspace.report_schedules.get(kind=ReportKind.DAILY)
    due_at = now + timedelta(seconds=random.randrange(seconds))
    daily.send_at = due_at.time().replace(second=0, microsecond=0)
    place(daily, due_at.date() - DAY).save()
    return opened


def _cross(running: Stack, opened: Sequence[OpenedWorkspace], seconds: int) -> None:
    connection = http.client.HTTPConnection(HOST, running.port, timeout=30)
    for each in opened:
        post_event(connection, each, tokens=1_000_000)
        time.sleep(seconds / len(opened))


def _kill(running: Stack, seconds: int) -> Counter[str]:
    """Kill one process after the other, and Redis at even intervals; how often each."""
    names = [name for name in running.running if name.partition("-")[0] in WORKERS]
    kills: Counter[str] = Counter()
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        is_redis_due = passed > (kills["valkey"] + 1) * seconds / (REDIS_KILLS + 1)
        name = "valkey" if is_redis_due else random.choice(names)
        running.kill(name)
        kills[name] += 1
        running.revive()
        time.sleep(random.uniform(*PAUSE_SECONDS))
    return kills


def _is_quiet(workspaces: Sequence[Workspace]) -> bool:
    """Whether everything has been noticed, made and sent."""
    return not (
        LimitCrossing.objects.filter(limit__workspace__in=workspaces, claimed_at=None).exists()
        or Report.objects.filter(workspace__in=workspaces, state=ReportState.PENDING).exists()
        or Delivery.objects.filter(workspace__in=workspaces, state__in=UNDER_WAY).exists()
    )


def _check(workspaces: Sequence[Workspace], hook: Receiver) -> None:
    """Compare what arrived with what happened. Raises `LoadError` if anything is missing or told twice."""
    arrived = hook.arrived()
    told = Counter(alert["id"] for each in arrived.values() for alert in each.body["data"]["alerts"])
    summaries = Counter(each.body["data"]["url"] for each in arrived.values() if not each.body["data"]["alerts"])
    alerts = {str(pk) for pk in Alert.objects.filter(workspace__in=workspaces).values_list("pk", flat=True)}
    crossings = LimitCrossing.objects.filter(limit__workspace__in=workspaces).count()
    repeats = sum(each.times - 1 for each in arrived.values())
    print(f"{crossings:,} crossings, {len(alerts):,} alerts, {len(told):,} arrived, {_doubled(told):,} twice")
    print(f"{len(workspaces):,} summaries due, {len(summaries):,} arrived, {_doubled(summaries):,} twice")
    print(f"{len(arrived):,} messages, {repeats:,} of them repeated under the same id after a kill")
    is_complete = crossings == THRESHOLDS * len(alerts) == THRESHOLDS * len(workspaces) and set(told) == alerts
    if not is_complete or len(summaries) != len(workspaces) or _doubled(told) or _doubled(summaries):
        raise LoadError("Something is missing, or came twice.")


def _doubled(counts: Counter[str]) -> int:
    return sum(number > 1 for number in counts.values())
