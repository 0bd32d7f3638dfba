"""People, workspaces and the audit trail in the operators' console. What lets people in is in `admin_credentials`."""

from collections.abc import Mapping
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse

from workspaces import admin_credentials, services
from workspaces.admin_base import ReadOnlyMixin, ServiceAdminMixin, ask_first, become, operator_of
from workspaces.admin_filters import LastUseFilter, WorkspaceFilter, WorkspaceFilterMixin
from workspaces.forms import MembershipForm, NewUserForm, UserForm
from workspaces.models import ApiKey, AuditEntry, Membership, Role, User, Workspace

__all__ = ["admin_credentials"]

_REDIRECT = 302
# What a person may do in this console; operators who are not superusers do not hand it out.
_RIGHTS = ("is_staff", "is_superuser", "groups", "user_permissions")


class SecondFactorFilter(admin.SimpleListFilter):
    """Who has set up an authenticator app."""

    title = "second factor"
    parameter_name = "second_factor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Set up"), ("no", "Not set up")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(has_factor=self.value() == "yes") if self.value() else queryset


class PersonsMembershipInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    """Only to look at: roles are changed on the page of the workspace."""

    model = Membership
    verbose_name_plural = "workspaces of this person"
    fields = ("workspace", "role", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("workspace")


@admin.register(User)
class UserAdmin(ServiceAdminMixin, StockUserAdmin):  # type: ignore[type-arg]
    form = UserForm
    add_form = NewUserForm
    list_display = ("email", "name", "is_active", "is_staff", "has_factor", "date_joined", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", SecondFactorFilter)
    search_fields = ("email", "name")
    search_help_text = "Address or name."
    ordering = ("email",)
    date_hierarchy = "date_joined"
    readonly_fields = ("date_joined", "last_login", "has_factor")
    actions = ("switch_off", "switch_on")
    fieldsets = (
        (
            None,
            {
                "fields": ("email", "name", "password", "is_active"),
                "description": "A new address counts as confirmed: ask for proof before you change it.",
            },
        ),
        (
            "Rights in this console",
            {
                "fields": ("is_staff", "is_superuser", "groups", "user_permissions"),
                "description": (
                    "What a person may do in a workspace is their role there, and is not changed here. "
                    "Only superusers change these."
                ),
            },
        ),
        ("Sign-in", {"fields": ("date_joined", "last_login", "has_factor")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "password1", "password2", "is_staff")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        factors = Authenticator.objects.filter(user=OuterRef("pk"), type=Authenticator.Type.TOTP)
        people: QuerySet[User] = super().get_queryset(request).annotate(has_factor=Exists(factors))
        return people

    @admin.display(description="second factor", boolean=True, ordering="has_factor")
    def has_factor(self, person: Any) -> bool:
        return bool(person.has_factor)

    def get_inlines(self, request: HttpRequest, obj: User | None = None) -> Any:
        return (PersonsMembershipInline,) if obj else ()

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        rights = () if operator_of(request).is_superuser else _RIGHTS
        return (*super().get_readonly_fields(request, obj), *rights)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Superusers are changed by superusers: whoever sets a password has the account."""
        may: bool = super().has_change_permission(request, obj)
        return may and (obj is None or not obj.is_superuser or operator_of(request).is_superuser)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        data, operator = form.cleaned_data, operator_of(request)
        if change:
            facts = ("email", "name", "is_active", "is_staff", "is_superuser")
            # What this operator may not change is not in the form.
            changes: Any = {name: data[name] for name in facts if name in data}
            services.update_user(obj, acting_user=operator, **changes)
            return
        person = services.create_user(
            email=data["email"],
            name=data["name"],
            password=data["password1"],
            is_staff=data.get("is_staff", False),
            acting_user=operator,
        )
        become(obj, person)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        given = {
            name: [str(right) for right in form.cleaned_data[name]]
            for name in ("groups", "user_permissions")
            if name in form.changed_data
        }
        if given:
            services.record_audit(
                "user.rights_changed", acting_user=operator_of(request), target=form.instance, data=given
            )

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        with transaction.atomic():
            response = super().user_change_password(request, id, form_url)
            if response.status_code == _REDIRECT:
                person = User.objects.get(pk=id)
                services.record_audit("user.password_changed", acting_user=operator_of(request), target=person)
        return response

    @admin.action(description="Switch off: the selected people can no longer sign in", permissions=["change"])
    def switch_off(self, request: HttpRequest, people: QuerySet[User]) -> HttpResponse | None:
        consequence = "They are signed out everywhere. Their workspaces, keys and traces stay; they can be switched on."
        if question := ask_first(self, request, people, "Switch off these people?", consequence, "Switch off"):
            return question
        self._switch(request, people, on=False)
        return None

    @admin.action(description="Switch on: the selected people can sign in again", permissions=["change"])
    def switch_on(self, request: HttpRequest, people: QuerySet[User]) -> None:
        self._switch(request, people, on=True)

    def _switch(self, request: HttpRequest, people: QuerySet[User], *, on: bool) -> None:
        operator = operator_of(request)
        kept = [person for person in people if person == operator or not self.has_change_permission(request, person)]
        switched = [person for person in people if person not in kept]
        for person in switched:
            services.update_user(person, is_active=on, acting_user=operator)
        if switched:
            messages.success(request, f"Switched {'on' if on else 'off'}: {', '.join(map(str, switched))}.")
        if kept:
            messages.warning(request, f"Left as they are: {', '.join(map(str, kept))}. You cannot switch these.")


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    form = MembershipForm
    extra = 0
    autocomplete_fields = ("user",)
    readonly_fields = ("created_at",)
    verbose_name_plural = "members (a workspace keeps at least one owner)"


class WorkspaceLastUseFilter(LastUseFilter):
    """When any key of the workspace was last used."""

    title = "last use of a key"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        used = ApiKey.objects.filter(workspace=OuterRef("pk"))
        if self.value() == "never":
            return queryset.exclude(Exists(used.exclude(last_used_at=None)))
        return queryset.filter(Exists(super().queryset(request, used)))


@admin.register(Workspace)
class WorkspaceAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "slug", "people", "timezone", "created_at")
    list_filter = (WorkspaceLastUseFilter, ("created_at", admin.DateFieldListFilter))
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workspace]:
        members = Membership.objects.filter(workspace=OuterRef("pk")).order_by().values("workspace")
        # Counted for the rows of a page; a join would count those of every workspace first.
        people = Subquery(members.annotate(number=Count("pk")).values("number"))
        workspaces: QuerySet[Workspace] = super().get_queryset(request).annotate(people=Coalesce(people, 0))
        return workspaces

    @admin.display(description="members", ordering="people")
    def people(self, workspace: Any) -> int:
        return int(workspace.people)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None) -> HttpResponse:
        subtitle = 'To open one: Billing › Workspace plans › Add, or "manage.py create_workspace".'
        return super().changelist_view(request, {"subtitle": subtitle, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Workspace, form: Any, change: bool) -> None:
        data = form.cleaned_data
        services.update_workspace(obj, name=data["name"], timezone=data["timezone"], acting_user=operator_of(request))

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        operator = operator_of(request)
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


@admin.register(Membership)
class MembershipAdmin(WorkspaceFilterMixin, ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Only to look at: roles are changed on the page of the workspace, where an owner has to remain."""

    list_display = ("user", "workspace", "role", "created_at")
    list_filter = ("role", WorkspaceFilter)
    list_select_related = ("user", "workspace")
    search_fields = ("user__email", "user__name", "workspace__name", "workspace__slug")
    search_help_text = "Person or workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)


@admin.register(AuditEntry)
class AuditEntryAdmin(WorkspaceFilterMixin, ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("created_at", "action", "target", "actor", "workspace")
    list_filter = (WorkspaceFilter, "action")
    list_select_related = ("actor", "workspace")
    search_fields = ("action", "target", "actor__email", "workspace__name", "workspace__slug")
    search_help_text = "Action, target, the person who did it, or the workspace."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    show_full_result_count = False
