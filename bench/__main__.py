"""`./opsmeter bench [ingest|batch|memory|pages]`: run one benchmark, or all of them."""

import argparse
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "opsmeter_site.settings"
os.environ["LOG_LEVEL"] = "ERROR"

import django

django.setup()

from django.core.management import call_command

from bench import batch, ingest, memory, pages
from bench.load import LoadError

BENCHMARKS = {"ingest": ingest.run, "batch": batch.run, "memory": memory.run, "pages": pages.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./opsmeter bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="default: all of them")
    parser.add_argument("--seconds", type=int, default=6, help="duration of one measurement (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each thing is measured, in turn (default: 3)")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    call_command("import_prices", verbosity=0)
    try:
        for name in [options.name] if options.name else BENCHMARKS:
            print(f"== {name}", flush=True)
            BENCHMARKS[name](options)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
