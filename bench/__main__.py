"""`./opsmeter bench [name]`: run one, or all short ones."""

import argparse
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "opsmeter_site.settings"
os.environ["LOG_LEVEL"] = "ERROR"
# Receivers of messages listen here.
os.environ["CHANNEL_HOSTS_ALLOWED"] = "127.0.0.1"

import django

django.setup()

from django.core.management import call_command

from bench import alerts, asks, batch, chaos, ingest, memory, pages, repricing, summaries, webhooks
from bench.load import LoadError

BENCHMARKS = {
    "ingest": ingest.run,
    "asks": asks.run,
    "batch": batch.run,
    "memory": memory.run,
    "pages": pages.run,
    "alerts": alerts.run,
    "webhooks": webhooks.run,
    "summaries": summaries.run,
    "chaos": chaos.run,
    "repricing": repricing.run,
}
# These take minutes, and run by name only.
LONG = {"summaries", "chaos", "repricing"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./opsmeter bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="default: all but the long ones")
    parser.add_argument("--seconds", type=int, default=6, help="duration of one measurement (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each thing is measured, in turn (default: 3)")
    parser.add_argument("--workspaces", type=int, default=10_000, help="of the summaries (default: 10,000)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the re-pricing (default: 1,000,000)")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    call_command("import_prices", verbosity=0)
    try:
        for name in [options.name] if options.name else [name for name in BENCHMARKS if name not in LONG]:
            print(f"== {name}", flush=True)
            BENCHMARKS[name](options)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
