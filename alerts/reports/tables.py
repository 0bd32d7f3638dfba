"""A summary as words and rows of words, for mails and pages alike. Templates only lay them out and escape them."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db.models import TextChoices

from alerts.models import AlertKind, AlertState, Handling, Severity
from alerts.reports import sentences
from alerts.reports.figures import AlertLine, Ranking, ReportContent, Row, Usage
from alerts.reports.sentences import driver_name, plain_name, relative
from ingest.reports import DIMENSIONS
from opsmeter_site.lib import formats

_LONGEST_CELL = 80
_TOP_MOVERS = 3


def summary(content: ReportContent) -> dict[str, Any]:
    """Everything that a summary shows besides its chart."""
    return {
        "content": content,
        "window": sentences.window(content),
        "whose_days": sentences.whose_days(content),
        "before_words": sentences.before_words(content),
        "headline": sentences.headline(content),
        "cause": sentences.cause(content),
        "unit_cost": sentences.unit_cost(content),
        "figures": _figures(content.now, content.before),
        "budgets": _labelled(
            ("Daily budget", sentences.daily_budget(content)),
            ("Month", sentences.monthly_budget(content)),
            ("Forecast", f"{sentences.forecast(content)} {sentences.budget_risk(content)}".strip()),
        ),
        "effects": [
            {"label": driver_name(each.driver), "amount": formats.usd_change(each.amount_usd)}
            for each in sorted(content.change.effects, key=lambda each: -abs(each.amount_usd))
        ],
        "difference": formats.usd_change(content.difference),
        "movers": [
            {
                "value": plain_name(each.endpoint_tag, _LONGEST_CELL),
                "amount": formats.usd_change(each.difference),
                "before": formats.usd(each.before_usd),
                "now": formats.usd(each.now_usd),
                "mostly": driver_name(each.driver).lower() if each.driver else "",
            }
            for each in content.change.movers
        ],
        "rankings": [_ranking(each) for each in content.rankings],
        "arrivals": [
            {
                "what": DIMENSIONS[each.dimension],
                "value": _named(each.value, each.provider),
                "cost": formats.usd(each.cost_usd),
                "requests": sentences.requests(each.requests),
            }
            for each in content.arrivals
        ],
        "alerts": sentences.alerts(content),
        "alert_lines": [_alert(each, content) for each in content.alerts.lines],
        "more_alerts": content.alerts.total - len(content.alerts.lines),
        "trust": _labelled(
            ("No price", sentences.unpriced(content)),
            ("Refused", sentences.refused(content)),
            ("Data", sentences.data_age(content)),
            ("Counted", sentences.what_counts(content)),
        ),
    }


def executive(content: ReportContent) -> dict[str, Any]:
    """What the executive report shows beside or instead of that: fewer and larger statements."""
    usual = summary(content)
    return usual | {
        "figures": [row for row in usual["figures"] if row["label"] in ("Spend", "Requests", "Cost per request")],
        "meanings": sentences.meanings(content),
        "run_rate": sentences.run_rate(content),
        "movers": usual["movers"][:_TOP_MOVERS],
        "budgets": _labelled(
            ("Daily budget", sentences.daily_budget(content)),
            ("Month", sentences.monthly_budget(content)),
            # What its budget has to fear is among the risks, if it has.
            ("Forecast", sentences.forecast(content)),
        ),
        "risks": sentences.risks(content),
    }


def _labelled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"label": label, "text": text} for label, text in pairs if text]


def _figures(now: Usage, before: Usage) -> list[dict[str, str]]:
    return [
        _figure(
            "Spend",
            _cost(now),
            _cost(before),
            now.cost_usd,
            before.cost_usd,
        ),
        _counted("Requests", now.requests, before.requests),
        _figure(
            "Cost per request",
            formats.usd_fine(now.cost_per_request),
            formats.usd_fine(before.cost_per_request),
            now.cost_per_request,
            before.cost_per_request,
        ),
        _counted("Tokens", now.tokens, before.tokens),
        _counted("Errors", now.errors, before.errors),
        _figure(
            "Error rate",
            formats.share(now.error_rate),
            formats.share(before.error_rate),
            now.error_rate,
            before.error_rate,
        ),
    ]


def _cost(usage: Usage) -> str:
    """In USD; at least that much, if some requests have no price."""
    return f"{'≥ ' if usage.unpriced_requests else ''}{formats.usd(usage.cost_usd)}"


def _counted(label: str, now: int, before: int) -> dict[str, str]:
    return _figure(label, formats.count(now), formats.count(before), now, before)


def _figure(
    label: str, now: str, before: str, amount_now: Decimal | int | None, amount_before: Decimal | int | None
) -> dict[str, str]:
    return {"label": label, "now": now, "before": before, "change": formats.change(relative(amount_now, amount_before))}


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "dimension": ranking.dimension,
        "title": f"Top {DIMENSIONS[ranking.dimension].lower()}s",
        "name": DIMENSIONS[ranking.dimension],
        "rows": [
            {
                "value": plain_name(row.value, _LONGEST_CELL),
                "provider": plain_name(row.provider) if row.provider else "",
                "cost": _cost(row.now),
                "requests": formats.count(row.now.requests),
                "change": _change(row),
            }
            for row in ranking.rows
        ],
        "more": ranking.more,
        "others": _cost(ranking.others),
    }


def _change(row: Row) -> str:
    if row.is_new:
        return "new"
    return formats.change(relative(row.now.cost_usd, row.before.cost_usd)) if row.now.requests else "gone"


def _named(value: str, provider: str) -> str:
    name = plain_name(value, _LONGEST_CELL)
    return f"{name} ({plain_name(provider)})" if provider else name


def _alert(line: AlertLine, content: ReportContent) -> dict[str, str]:
    return {
        "id": line.id,
        "title": plain_name(line.title, 160),
        "kind": _label(AlertKind, line.kind),
        "severity": line.severity,
        "severity_name": _label(Severity, line.severity),
        "state": _label(AlertState, line.state),
        "handling": _label(Handling, line.handling),
        "when": sentences.local_time(line.opened_at, content.time_zone),
    }


def _label(choices: type[TextChoices], value: str) -> str:
    """What a stored value is called; itself, if a later version no longer knows it."""
    labels: Iterable[tuple[str, str]] = choices.choices
    return dict(labels).get(value, value)
