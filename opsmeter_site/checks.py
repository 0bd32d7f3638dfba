"""What must be true of a deployment, said at start-up by `manage.py check`."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning

_SHORTEST_SECRET = 32
_KNOWN_SECRETS = frozenset({"only-for-tests", "change-me", "changeme", "secret"})


@register()
def check_time(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Days and months of the ledger are UTC; nothing may shift them."""
    if settings.USE_TZ and settings.TIME_ZONE == "UTC" and settings.CELERY_TIMEZONE == "UTC":
        return []
    return [
        Error(
            "USE_TZ must be on, and TIME_ZONE and CELERY_TIMEZONE must be UTC.",
            hint="Workspaces have a timezone of their own; the service itself counts in UTC.",
            id="opsmeter.E001",
        )
    ]


@register(Tags.security, deploy=True)
def check_production(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """What makes a production service unsafe or blind."""
    if not settings.IS_PRODUCTION:
        return []
    return [*_secrets(), *_hosts(), *_metrics()]


@register(Tags.security)
def check_debug(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """Not only with --deploy: DEBUG shows settings and source to anyone who can cause an error."""
    if not (settings.DEBUG and settings.IS_PRODUCTION):
        return []
    return [Error("DEBUG is on in production.", hint="Unset DEBUG, or set OPSMETER_ENV=local.", id="opsmeter.E002")]


def _secrets() -> list[CheckMessage]:
    if len(settings.SECRET_KEY) >= _SHORTEST_SECRET and settings.SECRET_KEY not in _KNOWN_SECRETS:
        return []
    return [
        Error(
            "SECRET_KEY is short or publicly known.",
            hint="Generate one: python -c 'import secrets; print(secrets.token_urlsafe(50))'",
            id="opsmeter.E003",
        )
    ]


def _hosts() -> list[CheckMessage]:
    if settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS:
        return []
    return [
        CheckWarning(
            "ALLOWED_HOSTS is empty or allows every host.",
            hint="Name the hosts that clients use, separated by commas.",
            id="opsmeter.W001",
        )
    ]


def _metrics() -> list[CheckMessage]:
    if settings.METRICS_TOKEN:
        return []
    return [
        CheckWarning(
            "METRICS_TOKEN is empty, so /internal/metrics answers 404.",
            hint="Set it, and give it to Prometheus as its bearer token.",
            id="opsmeter.W002",
        )
    ]
