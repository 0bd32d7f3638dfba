"""Timezones to choose from."""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from opsmeter_site.lib.periods import quarter_hour_of

# Names outside these regions are old aliases ("GB", "EST5EDT", "US/Pacific") of zones inside.
_REGIONS = (
    "Africa",
    "America",
    "Antarctica",
    "Arctic",
    "Asia",
    "Atlantic",
    "Australia",
    "Europe",
    "Indian",
    "Pacific",
)

Choice = tuple[str, str]


def zone_choices(current: str, now: datetime) -> list[Choice | tuple[str, list[Choice]]]:
    """Every zone by region, with its distance from UTC at `now`; and `current`, whatever it is."""
    is_listed = current == "UTC" or current.partition("/")[0] in _REGIONS
    plain = ["UTC"] if is_listed else [current, "UTC"]
    return [*((name, name) for name in plain), *_by_region(quarter_hour_of(now))]


@lru_cache(maxsize=1)
def _by_region(now: datetime) -> list[tuple[str, list[Choice]]]:
    # Takes 15 ms; clocks change on quarter hours, so it holds until the next one.
    regions: dict[str, list[Choice]] = {region: [] for region in _REGIONS}
    for name in sorted(available_timezones()):
        region, _, place = name.partition("/")
        if place and region in regions:
            regions[region].append((name, f"{_readable(place)} · {_distance(name, now)}"))
    return list(regions.items())


def _readable(place: str) -> str:
    return place.replace("_", " ").replace("/", ", ")


def _distance(name: str, now: datetime) -> str:
    offset = now.astimezone(ZoneInfo(name)).utcoffset() or timedelta()
    minutes = round(offset.total_seconds() / 60)
    sign = "−" if minutes < 0 else "+"
    return f"UTC{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
