"""What every page of a workspace says first when a limit is near or reached. Nothing here ever blocks."""

from workspaces.access import WorkspaceAccess


def banners_for(access: WorkspaceAccess) -> list[object]:
    """The banners of a workspace, the most urgent first."""
    return []
