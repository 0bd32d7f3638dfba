"""A clock that a person or a test can move, only forward."""

from datetime import UTC, datetime, timedelta


class SandboxClock:
    """Real time plus an offset, in whole seconds as the provider's times are."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset
        self._frozen: datetime | None = None

    @property
    def offset(self) -> timedelta:
        """How far this clock is ahead of real time."""
        return self._offset

    def now(self) -> datetime:
        """The present moment here, aware, in UTC and without microseconds."""
        return self._frozen or (datetime.now(UTC) + self._offset).replace(microsecond=0)

    def advance(self, step: timedelta) -> None:
        """Move forward. Raises ValueError for a step back."""
        if step < timedelta(0):
            raise ValueError("The clock only goes forward.")
        self._offset += step
        if self._frozen:
            self._frozen += step

    def freeze(self) -> None:
        """Stand still until `thaw`; `advance` still moves it. For two things in one second."""
        self._frozen = self.now()

    def thaw(self) -> None:
        """Go on with real time, which has not stood still."""
        self._frozen = None
