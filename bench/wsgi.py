"""The product as it is served, with the empty view of `bench.urls` behind it."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"

from opsmeter_site.wsgi import application

__all__ = ["application"]
