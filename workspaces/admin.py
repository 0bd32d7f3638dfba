"""People, workspaces, credentials and the audit trail in the operators' console."""

from collections.abc import Mapping
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError
from workspaces import services
from workspaces.admin_base import ServiceAdminMixin, become, explain
from workspaces.forms import ApiKeyForm, MembershipForm, NewUserForm, UserForm
from workspaces.models import AccessToken, ApiKey, AuditEntry, Membership, Role, User, Workspace

_REDIRECT = 302


def _operator(request: HttpRequest) -> User:
    # The console lets nobody in who is not signed in.
    return cast(User, request.user)


@admin.register(User)
class UserAdmin(ServiceAdminMixin, StockUserAdmin):  # type: ignore[type-arg]
    form = UserForm
    add_form = NewUserForm
    list_display = ("email", "name", "is_active", "is_staff", "date_joined", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser")
    search_fields = ("email", "name")
    ordering = ("email",)
    date_hierarchy = "date_joined"
    readonly_fields = ("date_joined", "last_login")
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        (
            "Access",
            {
                "fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions"),
                "description": (
                    "These are rights in this console. What a person may do in a workspace is their role there."
                ),
            },
        ),
        ("Times", {"fields": ("date_joined", "last_login")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "password1", "password2", "is_staff")}),)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        data = form.cleaned_data
        if change:
            services.update_user(
                obj,
                email=data["email"],
                name=data["name"],
                is_active=data["is_active"],
                is_staff=data["is_staff"],
                is_superuser=data["is_superuser"],
                acting_user=_operator(request),
            )
            return
        person = services.create_user(
            email=data["email"],
            name=data["name"],
            password=data["password1"],
            is_staff=data["is_staff"],
            acting_user=_operator(request),
        )
        become(obj, person)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        with transaction.atomic():
            response = super().user_change_password(request, id, form_url)
            if response.status_code == _REDIRECT:
                person = User.objects.get(pk=id)
                services.record_audit("user.password_changed", acting_user=_operator(request), target=person)
        return response


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    form = MembershipForm
    extra = 0
    autocomplete_fields = ("user",)
    readonly_fields = ("created_at",)
    verbose_name_plural = "members (a workspace keeps at least one owner)"


@admin.register(Workspace)
class WorkspaceAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "slug", "timezone", "created_at")
    search_fields = ("name", "slug", "id", "memberships__user__email")
    search_help_text = "Name, slug, id or a member's address."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    readonly_fields = ("id", "slug", "created_at")
    inlines = (MembershipInline,)
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "timezone", "slug", "id", "created_at"),
                "description": "Renaming keeps the slug, so that addresses and bookmarks stay valid.",
            },
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None) -> HttpResponse:
        subtitle = 'To open one: Billing › Workspace plans › Add, or "manage.py create_workspace".'
        return super().changelist_view(request, {"subtitle": subtitle, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Workspace, form: Any, change: bool) -> None:
        data = form.cleaned_data
        services.update_workspace(obj, name=data["name"], timezone=data["timezone"], acting_user=_operator(request))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        operator = _operator(request)
        formset.save(commit=False)
        # New owners come before the old ones go, so that one form can hand a workspace over.
        for member in formset.new_objects:
            stored = services.add_member(form.instance, member.user, member.role, acting_user=operator)
            become(member, stored)
        changed = [member for member, _fields in formset.changed_objects]
        for member in sorted(changed, key=lambda member: member.role != Role.OWNER):
            services.change_role(form.instance, member.user, member.role, acting_user=operator)
        for member in formset.deleted_objects:
            services.remove_member(form.instance, member.user, acting_user=operator)


class CredentialStateFilter(admin.SimpleListFilter):
    """Live, expired or revoked; of API keys and access tokens alike."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", "Live"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        expired = Q(revoked_at=None, expires_at__lte=utc_now())
        match self.value():
            case "live":
                return queryset.filter(~expired, revoked_at=None)
            case "expired":
                return queryset.filter(expired)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return queryset


class CredentialStateMixin:
    """The column that goes with the filter."""

    @admin.display(description="state")
    def state(self, credential: ApiKey | AccessToken) -> str:
        if credential.revoked_at is not None:
            return "revoked"
        if credential.expires_at is not None and credential.expires_at <= utc_now():
            return "expired"
        return "live"


@admin.register(ApiKey)
class ApiKeyAdmin(CredentialStateMixin, ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = ApiKeyForm
    list_display = ("name", "shown_key", "workspace", "created_by", "state", "last_used_at", "expires_at", "created_at")
    list_filter = (CredentialStateFilter,)
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
        operator, data = _operator(request), form.cleaned_data
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
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        for key in keys:
            services.revoke_api_key(key, acting_user=_operator(request))
        messages.success(request, f"Revoked: {', '.join(str(key) for key in keys)}.")

    @admin.action(description="Rotate: new secret, the old one works for another 24 hours", permissions=["change"])
    def rotate(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        for key in keys:
            try:
                plain = services.rotate_api_key(key, acting_user=_operator(request))
            except OpsmeterError as refusal:
                messages.error(request, f"{key.name}: {explain(refusal)}")
            else:
                messages.success(request, f"{key.name}: copy the new secret now, it is not shown again: {plain}")


@admin.register(AccessToken)
class AccessTokenAdmin(CredentialStateMixin, ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "shown_token", "user", "workspace", "scopes", "state", "last_used_at", "expires_at")
    list_filter = (CredentialStateFilter,)
    list_select_related = ("workspace", "user")
    search_fields = ("name", "lookup", "user__email", "workspace__name", "workspace__slug")
    search_help_text = "Name, the eight characters after om_pat_, person or workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = ("name", "shown_token", "user", "workspace", "scopes", "state", "created_at", "last_used_at")
    readonly_fields = fields
    actions = ("revoke",)

    @admin.display(description="token", ordering="lookup")
    def shown_token(self, token: AccessToken) -> str:
        return f"om_pat_{token.lookup}_…"

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A token speaks for its person, so nobody makes one for somebody else.
        return False

    @admin.action(description="Revoke: refuse the selected tokens from now on", permissions=["change"])
    def revoke(self, request: HttpRequest, access_tokens: QuerySet[AccessToken]) -> None:
        for token in access_tokens:
            services.revoke_access_token(token, acting_user=_operator(request))
        messages.success(request, f"Revoked: {', '.join(str(token) for token in access_tokens)}.")


@admin.register(AuditEntry)
class AuditEntryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("created_at", "action", "target", "actor", "workspace")
    list_filter = ("action",)
    list_select_related = ("actor", "workspace")
    search_fields = ("action", "target", "actor__email", "workspace__name", "workspace__slug")
    search_help_text = "Action, target, the person who did it, or the workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False
