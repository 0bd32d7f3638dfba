"""Many workspaces that all want their daily summary in the same minute: copies of one with a believable past."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.core.management import call_command
from django.db import connection

from alerts.models import Schedule
from alerts.schedules import place, start_due_reports
from bench import pages_data
from billing.services import OpenedWorkspace, open_workspace
from budgets.services import update_budget_settings
from opsmeter_site.lib.clock import utc_now
from workspaces.models import Membership, Role, User, Workspace

EVENTS, DAYS = 150, 20
_BUDGET_USD = Decimal(1_000)
_NAME = "Due at once"
_ADDRESS = "due-{}@bench.example"

# In an order that foreign keys allow.
_TABLES = (
    "ingest_workspacepolicy",
    "billing_workspaceplan",
    "budgets_budgetsettings",
    "ingest_limit",
    "ingest_meter",
    "ingest_event",
    "ingest_rollup",
    "ingest_summaryprogress",
    "ingest_summaryspan",
)
_TABLES_WITH_RANDOM_IDS = ("ingest_limit",)
_TABLES_OF_SPANS = ("ingest_usagesummary", "ingest_attributionsummary", "ingest_latencysummary")


def open_many(number: int) -> None:
    """Open `number` workspaces with owners and addresses of their own."""
    first = _template()
    workspaces = [Workspace(name=_NAME, slug=f"due-{each}") for each in range(number)]
    owners = [User(email=_ADDRESS.format(each), password="!") for each in range(number)]
    Workspace.objects.bulk_create(workspaces, batch_size=2_000)
    User.objects.bulk_create(owners, batch_size=2_000)
    Membership.objects.bulk_create(
        [
            Membership(workspace=workspace, user=owner, role=Role.OWNER)
            for workspace, owner in zip(workspaces, owners, strict=True)
        ],
        batch_size=2_000,
    )
    for table in _TABLES:
        _copy(table, first.workspace)
    for table in _TABLES_OF_SPANS:
        _copy_of_spans(table, first.workspace)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def make_due(moment: datetime) -> None:
    """Let the daily summary of all of them be due at `moment` (UTC), a whole minute: about the day before."""
    start_due_reports(utc_now())
    due = Schedule.objects.filter(workspace__name=_NAME, kind="daily")
    one = due[0]
    one.send_at = moment.astimezone(UTC).time()
    place(one, moment.date() - timedelta(days=1))
    due.update(send_at=one.send_at, next_day=one.next_day, next_due_at=one.next_due_at)


def _template() -> OpenedWorkspace:
    opened = open_workspace(name="Template", plan_tier="team", owner_email="bench@example.com")
    update_budget_settings(
        opened.workspace, acting_user=opened.owner, daily_limit_usd=_BUDGET_USD, monthly_limit_usd=_BUDGET_USD
    )
    pages_data.fill(opened.workspace.pk, EVENTS, now=utc_now(), days=DAYS)
    call_command("summarise", workspace=opened.workspace.slug)
    return opened


def _copy(table: str, first: Workspace) -> None:
    """The template's rows of `table`, in every other workspace."""
    values = {name: f"theirs.{name}" for name in _columns(table)} | {"workspace_id": "workspace.id"}
    if table in _TABLES_WITH_RANDOM_IDS:
        values["id"] = "gen_random_uuid()"
    _execute(
        f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())}"
        f" FROM (SELECT * FROM {table} WHERE workspace_id = %s) AS theirs"
        " JOIN workspaces_workspace AS workspace ON workspace.name = %s",
        first,
    )


def _copy_of_spans(table: str, first: Workspace) -> None:
    """The same for sums that belong to a span: under the copy of that span."""
    names = [name for name in _columns(table) if name != "span_id"]
    _execute(
        f"INSERT INTO {table} (workspace_id, span_id, {', '.join(names)})"
        f" SELECT own.workspace_id, own.id, {', '.join(f'theirs.{name}' for name in names)}"
        f" FROM (SELECT * FROM {table} WHERE workspace_id = %s) AS theirs"
        " JOIN ingest_summaryspan AS span ON span.id = theirs.span_id"
        " JOIN ingest_summaryspan AS own ON own.level = span.level AND own.starts_at = span.starts_at"
        " JOIN workspaces_workspace AS workspace ON workspace.id = own.workspace_id AND workspace.name = %s",
        first,
    )


def _columns(table: str) -> list[str]:
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, table)
    return [column.name for column in columns if column.name not in ("id", "workspace_id")]


def _execute(statement: str, first: Workspace) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [first.pk, _NAME])
