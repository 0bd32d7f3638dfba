"""Committed single events against an empty Django view: 64 connections, two processes, roll-ups and limits on."""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.load import (
    SCOPED_LIMITS,
    Measured,
    granian,
    gunicorn,
    open_limited_workspace,
    set_scoped_limits,
    write_keys,
    wrk,
)

WORKSPACES = 200
HOT, MANY = "one hot workspace", f"{WORKSPACES} workspaces"
BUDGETED = f"one hot workspace, {SCOPED_LIMITS} budgets"
EMPTY, GTHREAD = "empty view, same server", "empty view, gunicorn gthread"
BARE, BARE_GTHREAD = "empty view, bare Django project", "the same, gunicorn gthread"


def run(options: argparse.Namespace) -> None:
    """Measure everything in turn, `options.rounds` times, and print medians and ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        granian("bench.wsgi:application", "/empty") as product,
        gunicorn("bench.wsgi:application", "/empty") as gthread,
        granian("bench.empty:application", "/empty") as bare,
        gunicorn("bench.empty:application", "/empty") as bare_gthread,
    ):
        opened = [open_limited_workspace(f"Bench {number}") for number in range(WORKSPACES)]
        one = str(write_keys(Path(folder) / "one", opened[:1]))
        all_of_them = str(write_keys(Path(folder) / "many", opened))
        budgeted = open_limited_workspace("Bench budgets")
        set_scoped_limits(budgeted)
        with_budgets = str(write_keys(Path(folder) / "budgets", [budgeted]))
        measure: dict[str, Callable[[int], Measured]] = {
            HOT: lambda seconds: wrk(product.url, seconds, "events.lua", one),
            BUDGETED: lambda seconds: wrk(product.url, seconds, "events.lua", with_budgets),
            MANY: lambda seconds: wrk(product.url, seconds, "events.lua", all_of_them),
            EMPTY: lambda seconds: wrk(f"{product.url}/empty", seconds),
            GTHREAD: lambda seconds: wrk(f"{gthread.url}/empty", seconds),
            BARE: lambda seconds: wrk(f"{bare.url}/empty", seconds),
            BARE_GTHREAD: lambda seconds: wrk(f"{bare_gthread.url}/empty", seconds),
        }
        for take in measure.values():
            take(options.seconds)
        results: dict[str, list[Measured]] = {name: [] for name in measure}
        for _ in range(options.rounds):
            for name, take in measure.items():
                results[name].append(take(options.seconds))
    _report(results)


def _report(results: dict[str, list[Measured]]) -> None:
    rate = {name: statistics.median(one.per_second for one in taken) for name, taken in results.items()}
    p99 = {name: statistics.median(one.p99_ms for one in taken) for name, taken in results.items()}
    print(f"{'':38}{'per second':>12}{'p99 ms':>9}{'÷ empty':>9}{'÷ gthread':>11}{'÷ bare':>9}")
    for name, per_second in rate.items():
        ratios = f"{per_second / rate[EMPTY]:9.2f}{per_second / rate[GTHREAD]:11.2f}{per_second / rate[BARE]:9.2f}"
        print(f"{name:38}{per_second:12,.0f}{p99[name]:9.1f}{ratios}")
    print(f"{BUDGETED} ÷ {HOT}: {rate[BUDGETED] / rate[HOT]:.2f}")
    print(f"{HOT} ÷ {MANY}: {rate[HOT] / rate[MANY]:.2f}")
