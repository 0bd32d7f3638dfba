"""The one error family. Services raise these; `opsmeter_site.api_errors` turns them into answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of an input, in the input's own field names."""

    field: str
    message: str


class OpsmeterError(Exception):
    """A refusal with a machine-readable reason, a status and, where an input is at fault, the fields."""

    status = 400
    reason = "invalid_payload"

    def __init__(
        self,
        message: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors = list(errors)
        self.headers = dict(headers or {})


class InvalidInput(OpsmeterError):
    """400: the input was understood and is wrong; `errors` says where."""


class NotFound(OpsmeterError):
    """404: not there, or not yours; the two look the same from outside."""

    status = 404
    reason = "not_found"


class NotAllowed(OpsmeterError):
    """403: known and refused."""

    status = 403
    reason = "not_allowed"


class Conflict(OpsmeterError):
    """409: understood, and at odds with what is stored; the message says with what."""

    status = 409
    reason = "conflict"
