"""A summary as mail and as a short message, from its stored content alone."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse

from alerts.mail_rendering import render_mail
from alerts.messages import Fact, InlineImage, Mail
from alerts.models import Report, ReportKind
from alerts.reports import chart, sentences
from alerts.reports.figures import ReportContent
from alerts.reports.tables import executive, summary
from ingest.models import DataMode
from opsmeter_site.lib import formats

_CHART = "chart"
_MOST_FACTS = 8


def report_mail(report: Report, unsubscribe_url: str) -> Mail:
    """Subject, text, HTML and chart of a made report."""
    content = ReportContent.from_json(report.content or {})
    is_executive = report.kind == ReportKind.EXECUTIVE
    has_chart = bool(content.bars) and bool(content.now.requests)
    context = {
        **(executive(content) if is_executive else summary(content)),
        "title": report.title,
        "kind": report.get_kind_display(),
        "workspace_name": sentences.plain_name(report.workspace.name),
        "reason": _reason(report),
        "is_preview": report.schedule_id is None,
        "has_chart": has_chart,
        "chart": _CHART,
        "chart_size": (chart.WIDTH, chart.HEIGHT),
        "chart_words": chart.alternative_text(content),
        "report_url": _absolute(reverse("report", args=[report.workspace.slug, report.pk])),
        "investigate_url": _absolute(investigate_path(report, content)),
        "alerts_url": _absolute(reverse("alerts", args=[report.workspace.slug])),
        "settings_url": _absolute(reverse("settings-summaries", args=[report.workspace.slug])),
        "unsubscribe_url": unsubscribe_url,
    }
    images = (InlineImage(_CHART, chart.draw(content)),) if has_chart else ()
    return render_mail("report_executive" if is_executive else "report", context, images)


def report_brief(report: Report) -> tuple[str, tuple[Fact, ...]]:
    """The same for chat: one or two sentences and a handful of figures."""
    content = ReportContent.from_json(report.content or {})
    words = [sentences.headline(content), sentences.cause(content)]
    if content.is_empty:
        return words[0], ()
    context = summary(content)
    facts = [(row["label"], _compared(row)) for row in context["figures"] if row["label"] in _BRIEF_FIGURES]
    facts += [(row["label"], row["text"]) for row in context["budgets"]]
    facts += [("Alerts", context["alerts"])] if context["alerts"] else []
    facts += [(row["label"], row["text"]) for row in context["trust"] if row["label"] in ("No price", "Refused")]
    return " ".join(each for each in words if each), tuple(Fact(*each) for each in facts[:_MOST_FACTS])


_BRIEF_FIGURES = ("Requests", "Cost per request")


def _compared(row: dict[str, str]) -> str:
    return row["now"] if row["change"] == formats.NOTHING else f"{row['now']} ({row['change']})"


def investigate_path(report: Report, content: ReportContent) -> str:
    """The investigate page on exactly this window; "" where the console's days are other ones by now."""
    modes = set(content.data_modes)
    mode = "all" if modes == set(DataMode.values) else next(iter(modes)) if len(modes) == 1 else ""
    if report.zone != str(report.workspace.timezone) or not mode:
        return ""
    query: dict[str, Any] = {
        "range": "custom",
        "from": content.first_day.isoformat(),
        "to": content.last_day.isoformat(),
        "env": "all",
        "mode": mode,
    }
    return f"{reverse('investigate', args=[report.workspace.slug])}?{urlencode(query)}"


def _absolute(path: str) -> str:
    return f"{settings.OPSMETER_URL}{path}" if path else ""


def _reason(report: Report) -> str:
    kind, name = report.get_kind_display().lower(), sentences.plain_name(report.workspace.name)
    if report.schedule_id is None:
        return f"You get this {kind} once, because somebody in {name} asked for it to be sent now."
    return f"You get the {kind} because you are a recipient of the summaries of {name}."
