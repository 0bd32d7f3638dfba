"""What beat asks for, and when (UTC): the whole table."""

from typing import Any

from celery.schedules import crontab

# A message that waited longer than its task's interval is dropped: the next one does the same work.
_MINUTE = 60
_HOUR = 3_600
# How long somebody who asked on a page waits at most until work begins.
_SOON = 5.0
# How often crossings and messages are looked for: people hear of money within seconds.
_AT_ONCE = 1.0

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "heartbeat": {
        "task": "opsmeter_site.heartbeat",
        "schedule": crontab(),
        "options": {"expires": _MINUTE},
    },
    "purge-expired-rows": {
        "task": "ingest.purge_expired_rows",
        "schedule": crontab(minute=17),
        "options": {"expires": _HOUR},
    },
    "summarise": {
        "task": "ingest.summarise",
        "schedule": crontab(),
        "options": {"expires": _MINUTE},
    },
    "work-on-exports": {
        "task": "ingest.work_on_exports",
        "schedule": _SOON,
        "options": {"expires": _SOON},
    },
    "work-on-repricings": {
        "task": "ingest.work_on_repricings",
        "schedule": _SOON,
        "options": {"expires": _SOON, "queue": "reports"},
    },
    "delete-requested-rows": {
        "task": "ingest.delete_requested_rows",
        "schedule": _SOON,
        "options": {"expires": _SOON},
    },
    "delete-old-exports": {
        "task": "ingest.delete_old_exports",
        "schedule": crontab(minute=37),
        "options": {"expires": _HOUR},
    },
    "end-raises": {
        "task": "ingest.end_raises",
        "schedule": crontab(),
        "options": {"expires": _MINUTE},
    },
    "notice": {
        "task": "alerts.notice",
        "schedule": _AT_ONCE,
        "options": {"expires": _AT_ONCE, "queue": "alerts"},
    },
    "deliver": {
        "task": "alerts.deliver",
        "schedule": _AT_ONCE,
        "options": {"expires": _AT_ONCE, "queue": "alerts"},
    },
    "recover": {
        "task": "alerts.recover",
        "schedule": _SOON,
        "options": {"expires": _SOON, "queue": "alerts"},
    },
    "report": {
        "task": "alerts.report",
        "schedule": _SOON,
        "options": {"expires": _SOON, "queue": "reports"},
    },
    "evaluate-rules": {
        "task": "alerts.evaluate_rules",
        "schedule": crontab(),
        "options": {"expires": _MINUTE, "queue": "reports"},
    },
    "process-billing": {
        "task": "billing.process",
        "schedule": _AT_ONCE,
        "options": {"expires": _AT_ONCE, "queue": "alerts"},
    },
    "keep-billing-time": {
        "task": "billing.keep_time",
        "schedule": crontab(),
        "options": {"expires": _MINUTE, "queue": "alerts"},
    },
    "reconcile-billing": {
        "task": "billing.reconcile",
        "schedule": crontab(),
        "options": {"expires": _MINUTE, "queue": "reports"},
    },
    "import-prices": {
        "task": "ingest.import_prices",
        "schedule": crontab(hour=4, minute=10),
        "options": {"expires": 6 * _HOUR},
    },
    "audit-ledgers": {
        "task": "ingest.audit_ledgers",
        "schedule": crontab(hour=2, minute=40),
        "options": {"expires": 6 * _HOUR},
    },
}
