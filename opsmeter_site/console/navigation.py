"""The console's map: which pages there are, and from which role on."""

from dataclasses import dataclass

from django.urls import reverse

from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Role


@dataclass(frozen=True, slots=True)
class Page:
    """An entry of the navigation; `name` is that of its URL."""

    name: str
    label: str
    icon: str
    minimum: Role = Role.VIEWER


MAIN = (
    Page("overview", "Overview", "overview"),
    Page("investigate", "What changed?", "investigate"),
    Page("budgets", "Budgets", "budgets"),
    Page("alerts", "Alerts", "alerts"),
    Page("versions", "Prompt versions", "versions"),
    Page("requests", "Requests", "requests"),
    Page("reports", "Summaries", "reports"),
    Page("exports", "Exports", "exports"),
    Page("prices", "Prices", "prices"),
    Page("start", "Get started", "start"),
)
SETTINGS = (
    Page("settings-general", "General", "settings"),
    Page("settings-budgets", "Workspace budgets", "budgets"),
    Page("settings-billing", "Plan and billing", "billing", Role.ADMIN),
    Page("settings-alerts", "Alerts", "alerts"),
    Page("settings-summaries", "Summaries", "reports"),
    Page("settings-channels", "Channels", "channels"),
    Page("settings-recipients", "Recipients", "recipients"),
    Page("settings-keys", "API keys", "keys"),
    Page("settings-members", "Members", "members"),
    Page("settings-tokens", "Access tokens", "tokens"),
    Page("settings-data", "Data hygiene", "data"),
    Page("settings-audit", "Audit trail", "audit", Role.ADMIN),
)


@dataclass(frozen=True, slots=True)
class Link:
    """A page as one person sees it in one workspace."""

    name: str
    label: str
    icon: str
    url: str
    is_current: bool


def links(pages: tuple[Page, ...], access: WorkspaceAccess, path: str) -> list[Link]:
    """`pages` that the person may open; the one whose address begins `path` longest is current."""
    addresses = {
        page: reverse(page.name, kwargs={"slug": access.workspace.slug})
        for page in pages
        if role_includes(access.role, page.minimum)
    }
    return [
        Link(page.name, page.label, page.icon, url, _is_current(page, url, path)) for page, url in addresses.items()
    ]


def _is_current(page: Page, url: str, path: str) -> bool:
    return path == url if page.name in {"overview", "settings-general"} else path.startswith(url)
