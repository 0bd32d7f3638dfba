"""The server's entry: the ingest gateway in front, Django behind it, in one process."""

import gc
import os
import signal

# granian forks its workers with its own handlers in place, which do nothing there: a worker told to stop while it
# loads would serve on, and be killed later with requests under way.
for _number in (signal.SIGINT, signal.SIGTERM):
    if getattr(signal.getsignal(_number), "__module__", "").startswith("granian."):
        signal.signal(_number, signal.SIG_DFL)

# Threads share a few connections; one connection a thread would ask PostgreSQL for hundreds.
os.environ.setdefault("DATABASE_POOL_SIZE", "16")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmeter_site.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402 (the lines above must come first)

_django = get_wsgi_application()

from ingest.gateway.app import Gateway  # noqa: E402 (models can be imported once Django is set up)
from ingest.pricing import warm_up  # noqa: E402
from opsmeter_site.lib.database import conninfo  # noqa: E402

application = Gateway(conninfo(), _django)
application.warm_up()
warm_up()

# What is loaded by now stays for good. Looking through it for garbage again and again took a third of a batch's time.
# A request leaves no cycles behind, so looking at what is new can be rarer, too.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)
