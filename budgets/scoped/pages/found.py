"""The budget that an address names."""

from uuid import UUID

from budgets.models import Budget
from opsmeter_site.lib.errors import NotFound
from workspaces.access import WorkspaceAccess


def budget_of(access: WorkspaceAccess, budget_id: UUID) -> Budget:
    """The workspace's budget with this id. Raises `NotFound`, the same for "not yours" and "not there"."""
    budget = Budget.objects.filter(workspace=access.workspace, pk=budget_id).first()
    if budget is None:
        raise NotFound("There is no such budget.")
    return budget
