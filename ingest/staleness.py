"""Whoever changes raw rows makes the summaries over them unusable, in the same transaction, under the ledger lock."""

from datetime import datetime, timedelta

from ingest.spans import LONGEST
from opsmeter_site.lib.periods import QUARTER_HOUR

# A quarter hour that ended this long ago is not changed any more without saying so; one that ended longer ago than
# `BUILT_AFTER` may be summed. Clocks of two servers, or of a commit's begin and end, may differ by what is in between.
SAID_AFTER = timedelta(minutes=5)
BUILT_AFTER = timedelta(minutes=10)


def late_from(now: datetime) -> datetime:
    """The newest quarter hour whose events are late at `now`: it, or a span that ends with it, may have been summed."""
    return now - SAID_AFTER - QUARTER_HOUR


_REACHES = ", ".join(
    f"({level.value}, INTERVAL '{round(longest.total_seconds())} seconds')" for level, longest in LONGEST.items()
)


def mark_stale_sql(changed: str) -> str:
    """An UPDATE of the spans around the moments of the relation `changed` (workspace_id, moment).

    One look-up in the index for each moment and level; OFFSET keeps the planner from making it a scan of all levels.
    """
    return f"""
        UPDATE ingest_summaryspan AS span SET is_stale = TRUE
        FROM {changed} AS changed CROSS JOIN (VALUES {_REACHES}) AS reach (level, longest) CROSS JOIN LATERAL (
            SELECT id FROM ingest_summaryspan
            WHERE workspace_id = changed.workspace_id AND level = reach.level AND NOT is_stale
                AND starts_at > changed.moment - reach.longest AND starts_at <= changed.moment
                AND ends_at > changed.moment
            OFFSET 0
        ) AS around
        WHERE span.workspace_id = changed.workspace_id AND span.id = around.id"""  # noqa: S608 (names and constants)


# Takes a JSON list of rows {w: workspace id, t: quarter hour} that got new events: also, where there was no span
# because there was no event, it makes the next look begin there.
MARK_LATE = f"""
WITH late AS MATERIALIZED (
    SELECT w AS workspace_id, t AS moment FROM json_to_recordset(%s::json) AS r(w uuid, t timestamptz)
), marked AS (
    {mark_stale_sql("late")}
)
UPDATE ingest_summaryprogress AS progress SET scanned_until = first.moment
FROM (SELECT workspace_id, min(moment) AS moment FROM late GROUP BY workspace_id) AS first
WHERE progress.workspace_id = first.workspace_id AND progress.scanned_until > first.moment
"""  # noqa: S608 (only the constant above is put in)
