"""The hours in which alerts that can wait do wait: local wall time, right across every change of clocks."""

from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

from opsmeter_site.lib.periods import DAY, wall_moment


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` until `end`, local wall time to the minute; over midnight if `end` is the earlier one."""

    start: time
    end: time

    def end_after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """When the quiet hours that hold `moment` (aware) end, in UTC; None if none do."""
        today = moment.astimezone(zone).date()
        # A night that holds the moment began today or yesterday, by the clocks of `zone`.
        for day in (today - DAY, today):
            last_day = day if self.start < self.end else day + DAY
            end = wall_moment(zone, last_day, self.end)
            if wall_moment(zone, day, self.start) <= moment < end:
                return end
        return None
