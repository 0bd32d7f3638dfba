"""Secrets on their way to the one page that shows them: kept in the person's session, encrypted, for minutes."""

from datetime import timedelta

from django.http import HttpRequest

from opsmeter_site.lib.sealed import Unreadable, seal, unseal

KEPT_FOR = timedelta(minutes=30)
_PREFIX = "once:"


def keep(request: HttpRequest, name: str, secret: str) -> None:
    """Let `secret` be read under `name` in this session for `KEPT_FOR`. The session's row holds no plain text."""
    request.session[_PREFIX + name] = seal(secret)


def read(request: HttpRequest, name: str) -> str | None:
    """The secret kept under `name`, as long as its time lasts."""
    kept = request.session.get(_PREFIX + name)
    if kept is None:
        return None
    try:
        return unseal(kept, no_older_than=KEPT_FOR)
    except Unreadable:
        del request.session[_PREFIX + name]
        return None


def take(request: HttpRequest, name: str) -> str | None:
    """`read`, once: after this it is gone."""
    secret = read(request, name)
    request.session.pop(_PREFIX + name, None)
    return secret
