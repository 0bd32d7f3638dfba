"""Paths under `/v1/`, and pages under `/w/<slug>/`."""

from django.urls import path

from budgets import api, views

urlpatterns = [
    path("settings/budgets", api.BudgetSettingsView.as_view(), name="api-budgets"),
    path("settings/workspace-status", api.WorkspaceStatusView.as_view(), name="settings-workspace-status"),
    path("diagnostics/workspace-status", api.WorkspaceDiagnosticsView.as_view(), name="diagnostics-workspace-status"),
]

page_urlpatterns = [
    path("settings/budgets/", views.budgets_page, name="settings-budgets"),
    path("settings/budgets/preview/", views.budgets_preview, name="settings-budgets-preview"),
]
