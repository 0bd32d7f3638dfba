"""Paths under `/v1/`, and pages under `/w/<slug>/`."""

from django.urls import path

from budgets import api, views
from budgets.scoped import api as scoped_api
from budgets.scoped.pages import detail, editor, explain, lists

urlpatterns = [
    path("settings/budgets", api.BudgetSettingsView.as_view(), name="api-budgets"),
    path("settings/workspace-status", api.WorkspaceStatusView.as_view(), name="settings-workspace-status"),
    path("diagnostics/workspace-status", api.WorkspaceDiagnosticsView.as_view(), name="diagnostics-workspace-status"),
    path("budgets", scoped_api.BudgetsView.as_view(), name="api-budgets-list"),
    path("budgets/simulate", scoped_api.SimulateView.as_view(), name="api-budget-simulation"),
    path("budgets/leases", scoped_api.LeasesView.as_view(), name="api-leases"),
    path("budgets/<uuid:budget_id>", scoped_api.BudgetView.as_view(), name="api-budget"),
    path("budgets/<uuid:budget_id>/raise", scoped_api.RaiseView.as_view(), name="api-budget-raise"),
    path("budgets/<uuid:budget_id>/adjustments", scoped_api.AdjustmentsView.as_view(), name="api-budget-adjustments"),
    path("budgets/<uuid:budget_id>/history", scoped_api.HistoryView.as_view(), name="api-budget-history"),
]

page_urlpatterns = [
    path("budgets/", lists.budgets, name="budgets"),
    path("budgets/new/", editor.budget_new, name="budget-new"),
    path("budgets/values/", editor.budget_values_seen, name="budgets-values"),
    path("budgets/explain/", explain.budgets_explain, name="budgets-explain"),
    path("budgets/<uuid:budget_id>/", detail.budget_page, name="budget"),
    path("budgets/<uuid:budget_id>/edit/", editor.budget_edit, name="budget-edit"),
    path("budgets/<uuid:budget_id>/raise/", detail.budget_raise, name="budget-raise"),
    path("budgets/<uuid:budget_id>/raise/end/", detail.budget_raise_end, name="budget-raise-end"),
    path("budgets/<uuid:budget_id>/adjust/", detail.budget_adjust, name="budget-adjust"),
    path("budgets/<uuid:budget_id>/delete/", detail.budget_delete, name="budget-delete"),
    path("budgets/<uuid:budget_id>/leases/release/", detail.budget_lease_release, name="budget-lease-release"),
    path("settings/budgets/", views.budgets_page, name="settings-budgets"),
    path("settings/budgets/preview/", views.budgets_preview, name="settings-budgets-preview"),
]
