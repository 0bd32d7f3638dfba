"""The product's settings with one more page, which does nothing."""

from opsmeter_site.settings import *  # noqa: F403

ROOT_URLCONF = "bench.urls"
