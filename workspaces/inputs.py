"""Checks of what people type, and how a refusal by a model or the database becomes `InvalidInput`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from unicodedata import category
from zoneinfo import ZoneInfo, available_timezones

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from psycopg.errors import UniqueViolation

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces.models import Role

# Unicode categories: control characters and lone surrogates.
_UNSTORABLE = frozenset({"Cc", "Cs"})


@cache
def _zone_names() -> frozenset[str]:
    # "Factory" is no zone; the model field leaves it out too. "localtime" is whatever this machine is set to.
    return frozenset(available_timezones() - {"Factory", "localtime"})


def parse_timezone(value: str | ZoneInfo) -> ZoneInfo:
    """The zone of that IANA name. Raises `InvalidInput` (`timezone`) for any other."""
    if str(value) in _zone_names():
        return ZoneInfo(str(value))
    message = 'An IANA name such as "Europe/Berlin" or "UTC".'
    raise InvalidInput("Unknown timezone.", errors=[FieldError("timezone", message)])


def clean_text(value: str, field: str, max_length: int, *, required: bool = True) -> str:
    """`value`, trimmed. Raises `InvalidInput` if it is empty (and `required`), too long or unstorable."""
    value = value.strip()
    if required and not value:
        raise InvalidInput("Missing text.", errors=[FieldError(field, "Must not be empty.")])
    if len(value) > max_length:
        raise InvalidInput("Text too long.", errors=[FieldError(field, f"At most {max_length} characters.")])
    if any(category(character) in _UNSTORABLE for character in value):
        raise InvalidInput("Bad text.", errors=[FieldError(field, "Control characters are not allowed.")])
    return value


def clean_email(value: str) -> str:
    """`value` as addresses are stored: trimmed, in lower case. Raises `InvalidInput` (`email`) if it is none."""
    value = clean_text(value, "email", 254).lower()
    try:
        validate_email(value)
    except ValidationError as error:
        raise InvalidInput("Bad address.", errors=[FieldError("email", "Enter an e-mail address.")]) from error
    return value


def clean_role(role: str) -> str:
    """A known role. Raises `InvalidInput` (`role`) for any other."""
    if role not in Role.values:
        raise InvalidInput("Unknown role.", errors=[FieldError("role", f"One of: {', '.join(Role.values)}.")])
    return str(role)


def check_expiry(expires_at: datetime | None) -> None:
    """Raise `InvalidInput` (`expires_at`) unless the moment, if there is one, is aware and ahead."""
    if expires_at is None:
        return
    if expires_at.tzinfo is None or expires_at <= utc_now():
        raise InvalidInput("Bad expiry.", errors=[FieldError("expires_at", "A moment in the future, with its zone.")])


@contextmanager
def invalid_input() -> Iterator[None]:
    """Turn a model's `ValidationError` into `InvalidInput` with the same fields and messages."""
    try:
        yield
    except ValidationError as error:
        errors = [
            FieldError("" if field == "__all__" else field, message)
            for field, messages in error.message_dict.items()
            for message in messages
        ]
        raise InvalidInput(" ".join(item.message for item in errors), errors=errors) from error


@contextmanager
def taken(field: str, message: str) -> Iterator[None]:
    """Turn a violated unique constraint into `InvalidInput` about `field`; the transaction around stays usable."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if not isinstance(error.__cause__, UniqueViolation):
            raise
        raise InvalidInput(message, errors=[FieldError(field, message)]) from error
