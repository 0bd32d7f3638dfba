"""What lets people and programs in, in the operators' console: API keys, access tokens, invitations."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError
from workspaces import services
from workspaces.admin_base import ServiceAdminMixin, ask_first, become, explain, operator_of
from workspaces.admin_filters import CredentialStateFilter, LastUseFilter, WorkspaceFilter, WorkspaceFilterMixin
from workspaces.forms import ApiKeyForm
from workspaces.invitations import revoke_invitation
from workspaces.models import AccessToken, ApiKey, Invitation


@admin.register(ApiKey)
class ApiKeyAdmin(WorkspaceFilterMixin, ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = ApiKeyForm
    list_display = ("name", "shown_key", "workspace", "created_by", "state", "last_used_at", "expires_at", "created_at")
    list_filter = (CredentialStateFilter, LastUseFilter, WorkspaceFilter)
    list_select_related = ("workspace", "created_by")
    search_fields = ("name", "lookup", "previous_lookup", "workspace__name", "workspace__slug", "created_by__email")
    search_help_text = "Name, the eight characters after om_live_, workspace or creator."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    autocomplete_fields = ("workspace",)
    actions = ("revoke", "rotate")

    @admin.display(description="key", ordering="lookup")
    def shown_key(self, key: ApiKey) -> str:
        return f"om_live_{key.lookup}_…"

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            about = "The secret is shown once, after saving. Nobody can read it again, not even here."
            return ((None, {"fields": ("workspace", "name", "expires_at"), "description": about}),)
        about = "Only the expiry can be changed. To revoke a key or give it a new secret, use the actions of the list."
        return (
            (None, {"fields": ("workspace", "name", "shown_key", "state", "expires_at"), "description": about}),
            ("Use", {"fields": ("created_by", "created_at", "last_used_at", "revoked_at", "previous_expires_at")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ()
        fixed = ("created_by", "created_at", "last_used_at", "revoked_at", "previous_expires_at")
        settled = ("expires_at",) if obj.revoked_at else ()
        return ("workspace", "name", "shown_key", "state", *fixed, *settled)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        operator, data = operator_of(request), form.cleaned_data
        if change:
            if "expires_at" in form.changed_data:
                services.change_api_key_expiry(obj, data["expires_at"], acting_user=operator)
            return
        key, plain = services.create_api_key(
            data["workspace"],
            name=data["name"],
            created_by=operator,
            expires_at=data["expires_at"],
            acting_user=operator,
        )
        become(obj, key)
        messages.success(request, f"Copy the new API key now, it is not shown again: {plain}")

    @admin.action(description="Revoke: refuse the selected keys from now on", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> HttpResponse | None:
        consequence = "Programs that use these keys are refused at once. A revoked key never works again."
        if question := ask_first(self, request, keys, "Revoke these keys?", consequence, "Revoke"):
            return question
        for key in keys:
            services.revoke_api_key(key, acting_user=operator_of(request))
        messages.success(request, f"Revoked: {', '.join(str(key) for key in keys)}.")
        return None

    @admin.action(description="Rotate: new secret, the old one works for another 24 hours", permissions=["change"])
    def rotate(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        for key in keys:
            try:
                plain = services.rotate_api_key(key, acting_user=operator_of(request))
            except OpsmeterError as refusal:
                messages.error(request, f"{key.name}: {explain(refusal)}")
            else:
                messages.success(request, f"{key.name}: copy the new secret now, it is not shown again: {plain}")


_TOKEN_TIMES = ("created_at", "last_used_at", "expires_at", "revoked_at")


@admin.register(AccessToken)
class AccessTokenAdmin(WorkspaceFilterMixin, ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "shown_token", "user", "workspace", "scopes", "state", "last_used_at", "expires_at")
    list_filter = (CredentialStateFilter, LastUseFilter, WorkspaceFilter)
    list_select_related = ("workspace", "user")
    search_fields = ("name", "lookup", "user__email", "workspace__name", "workspace__slug")
    search_help_text = "Name, the eight characters after om_pat_, person or workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = ("name", "shown_token", "user", "workspace", "scopes", "state", *_TOKEN_TIMES)
    readonly_fields = fields
    actions = ("revoke",)

    @admin.display(description="token", ordering="lookup")
    def shown_token(self, token: AccessToken) -> str:
        return f"om_pat_{token.lookup}_…"

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A token speaks for its person, so nobody makes one for somebody else.
        return False

    @admin.action(description="Revoke: refuse the selected tokens from now on", permissions=["change"])
    def revoke(self, request: HttpRequest, access_tokens: QuerySet[AccessToken]) -> HttpResponse | None:
        consequence = "Scripts that use these tokens are refused at once. A revoked token never works again."
        if question := ask_first(self, request, access_tokens, "Revoke these tokens?", consequence, "Revoke"):
            return question
        for token in access_tokens:
            services.revoke_access_token(token, acting_user=operator_of(request))
        messages.success(request, f"Revoked: {', '.join(str(token) for token in access_tokens)}.")
        return None


class InvitationStateFilter(admin.SimpleListFilter):
    """What has become of an invitation."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("expired", "Expired"), ("accepted", "Accepted"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        waiting = Q(accepted_at=None, revoked_at=None)
        match self.value():
            case "open":
                return queryset.filter(waiting, expires_at__gt=utc_now())
            case "expired":
                return queryset.filter(waiting, expires_at__lte=utc_now())
            case "accepted":
                return queryset.exclude(accepted_at=None)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


@admin.register(Invitation)
class InvitationAdmin(WorkspaceFilterMixin, ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("email", "workspace", "role", "state", "invited_by", "sent_at", "expires_at")
    list_filter = (InvitationStateFilter, "role", WorkspaceFilter)
    list_select_related = ("workspace", "invited_by")
    search_fields = ("email", "workspace__name", "workspace__slug", "invited_by__email")
    search_help_text = "The invited address, workspace or who invited."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = ("email", "workspace", "role", "state", "invited_by", "created_at", "sent_at", "expires_at")
    readonly_fields = fields
    actions = ("revoke",)

    @admin.display(description="state")
    def state(self, invitation: Invitation) -> str:
        if invitation.accepted_at is not None:
            return "accepted"
        if invitation.revoked_at is not None:
            return "revoked"
        return "expired" if invitation.is_expired else "open"

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A link is mailed in the name of a member; operators add members in the workspace itself.
        return False

    @admin.action(description="Revoke: let the links of the selected invitations open nothing", permissions=["change"])
    def revoke(self, request: HttpRequest, invitations: QuerySet[Invitation]) -> HttpResponse | None:
        consequence = "The links that were mailed open nothing any more. The workspace can invite the people again."
        if question := ask_first(self, request, invitations, "Revoke these invitations?", consequence, "Revoke"):
            return question
        for invitation in invitations.select_related("workspace"):
            revoke_invitation(invitation, acting_user=operator_of(request))
        messages.success(request, f"Revoked: {', '.join(invitation.email for invitation in invitations)}.")
        return None
