"""What clients send, read and checked: JSON:API requests."""

from datetime import datetime
from typing import Any

from billing.sandbox.errors import Refused

Json = dict[str, Any]


def resource(body: Any, kind: str, record_id: str | None = None) -> Json:
    """The `data` of a request, which must be of this kind, and have this id unless it is new."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise Refused("The member data is required.")
    if data.get("type") != kind:
        raise Refused(f"The resource type must be {kind}.")
    if record_id is not None and data.get("id") != record_id:
        raise Refused("The resource id does not match.")
    return data


def part(data: Json, name: str) -> Json:
    """An object within another one; empty if it is not there."""
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"The {name} field must be an object.")
    return value


def refuse_empty(data: Json, where: str) -> None:
    """Texts that are empty count as null, and null is no text."""
    for name, value in data.items():
        if isinstance(value, str) and not value.strip():
            raise Refused(f"The {name} field must be a string.", f"{where}/{name}")


def related_id(data: Json, name: str) -> str:
    """The id that a relationship of a request names."""
    linked = part(part(part(data, "relationships"), name), "data").get("id")
    if not isinstance(linked, str):
        raise Refused(f"The {name} relationship is required, with its id as a string.")
    return linked


def whole(attributes: Json, name: str) -> int:
    """An integer."""
    value = attributes[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"The {name} field must be an integer.")
    return value


def flag(attributes: Json, name: str) -> bool:
    """A boolean; False if it is not there."""
    value = attributes.get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"The {name} field must be true or false.")
    return value


def moment(attributes: Json, name: str) -> datetime | None:
    """A time with its zone, or None."""
    value = attributes.get(name)
    if value is None:
        return None
    try:
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Refused(f"The {name} field must be an ISO 8601 date.") from None
    if read.tzinfo is None:
        raise Refused(f"The {name} field must have a time zone.")
    return read.replace(microsecond=0)
