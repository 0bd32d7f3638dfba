"""Where a page of a long list begins, as it stands in an address: beside a row, told by its moment and its id."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

from django.db.models import Q

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """After the row of that moment and id, towards older or newer ones. Such a place stays while rows are added."""

    moment: datetime
    pk: UUID
    is_newer: bool = False

    def encode(self) -> str:
        """As it stands in an address."""
        microseconds = (self.moment - _EPOCH) // _MICROSECOND
        return f"{'n' if self.is_newer else 'o'}{microseconds}-{self.pk.hex}"

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """The cursor of an address; None if it is none."""
        try:
            microseconds, _, pk = text[1:].partition("-")
            found = cls(_EPOCH + int(microseconds) * _MICROSECOND, UUID(pk), is_newer=text[0] == "n")
        except (ValueError, OverflowError, IndexError):
            return None
        return found if text == found.encode() else None

    def beyond(self, field: str) -> Q:
        """The rows after it, in the order of `field` and the primary key."""
        compare = "gt" if self.is_newer else "lt"
        # The first condition says nothing new; an index on `field` begins with it.
        return Q(**{f"{field}__{compare}e": self.moment}) & (
            Q(**{f"{field}__{compare}": self.moment}) | Q(**{f"pk__{compare}": self.pk})
        )
