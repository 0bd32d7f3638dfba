"""Paths under `/v1/`."""

from django.urls import path

from budgets import api

urlpatterns = [
    path("settings/budgets", api.BudgetSettingsView.as_view(), name="api-budgets"),
    path("settings/workspace-status", api.WorkspaceStatusView.as_view(), name="settings-workspace-status"),
    path("diagnostics/workspace-status", api.WorkspaceDiagnosticsView.as_view(), name="diagnostics-workspace-status"),
]
