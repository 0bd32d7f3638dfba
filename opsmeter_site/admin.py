"""Records of Django and django-allauth in the operators' console: facts to look at, and what support does with them.

Secrets are never shown: no TOTP key, no recovery code, no session key. Identity providers are configured through the
environment, so their table is not here.
"""

from typing import Any, ClassVar

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse

from workspaces.admin_base import AuditedMixin, ReadOnlyMixin, ask_first, operator_of
from workspaces.services import record_audit

for _model in (Authenticator, EmailAddress, Group, SocialAccount, SocialApp, SocialToken, UserSession):
    admin.site.unregister(_model)


class _OfPeopleAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that belong to a person, who manages them on their own pages."""

    list_select_related = ("user",)
    search_fields: ClassVar[tuple[str, ...]] = ("user__email", "user__name")
    search_help_text = "The person's address or name."

    def has_support_permission(self, request: HttpRequest) -> bool:
        """Who may change people may also do this for them; superusers are left to superusers by the actions."""
        return operator_of(request).has_perm("workspaces.change_user")

    def _theirs(self, request: HttpRequest, rows: QuerySet[Any]) -> list[Any]:
        """The rows that this operator may act on."""
        operator = operator_of(request)
        return [row for row in rows.select_related("user") if operator.is_superuser or not row.user.is_superuser]


@admin.register(Authenticator)
class AuthenticatorAdmin(_OfPeopleAdmin):
    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = ("user", "type", "created_at", "last_used_at")
    actions = ("remove",)

    @admin.action(description="Remove all second factors of the selected people", permissions=["support"])
    @transaction.atomic
    def remove(self, request: HttpRequest, authenticators: QuerySet[Authenticator]) -> HttpResponse | None:
        consequence = (
            "For people who have lost their phone and their recovery codes: make sure that it is them. "
            "Their recovery codes go too, and their password alone signs in until they set up a new factor."
        )
        if question := ask_first(self, request, authenticators, "Remove second factors?", consequence, "Remove"):
            return question
        people = {row.user for row in self._theirs(request, authenticators)}
        Authenticator.objects.filter(user__in=people).delete()
        for person in people:
            record_audit("user.two_factor_turned_off", acting_user=operator_of(request), target=person)
        messages.success(request, f"Removed for: {', '.join(sorted(map(str, people))) or 'nobody'}.")
        return None


@admin.register(UserSession)
class UserSessionAdmin(_OfPeopleAdmin):
    list_display = ("user", "ip", "user_agent", "created_at", "last_seen_at")
    list_filter = (("last_seen_at", admin.DateFieldListFilter),)
    search_fields = ("user__email", "user__name", "ip")
    search_help_text = "The person's address or name, or the whole IP address."
    date_hierarchy = "created_at"
    ordering = ("-last_seen_at",)
    fields = ("user", "ip", "user_agent", "created_at", "last_seen_at")
    actions = ("end",)

    @admin.action(description="End: sign the selected people out there", permissions=["support"])
    @transaction.atomic
    def end(self, request: HttpRequest, sessions: QuerySet[UserSession]) -> HttpResponse | None:
        consequence = "Whoever uses these browsers has to sign in again."
        if question := ask_first(self, request, sessions, "End these sessions?", consequence, "End"):
            return question
        ended = self._theirs(request, sessions)
        for session in ended:
            session.end()
            record_audit(
                "user.sessions_ended", acting_user=operator_of(request), target=session.user, data={"sessions": 1}
            )
        messages.success(request, f"Ended: {len(ended)} sessions.")
        return None


@admin.register(EmailAddress)
class EmailAddressAdmin(_OfPeopleAdmin):
    list_display = ("email", "user", "verified", "primary")
    list_filter = ("verified", "primary")
    search_fields = ("email", "user__email", "user__name")
    search_help_text = "Address or name. To change an address, change the person's."
    ordering = ("email",)
    actions = ("confirm",)

    @admin.action(description="Confirm: the selected addresses belong to their people", permissions=["support"])
    @transaction.atomic
    def confirm(self, request: HttpRequest, addresses: QuerySet[EmailAddress]) -> HttpResponse | None:
        consequence = "Whoever signed up with these addresses can sign in, without having shown that they get the mail."
        if question := ask_first(self, request, addresses, "Confirm these addresses?", consequence, "Confirm"):
            return question
        waiting = self._theirs(request, addresses.filter(verified=False))
        confirmed = [address for address in waiting if address.set_verified()]
        for address in confirmed:
            record_audit("user.address_confirmed", acting_user=operator_of(request), target=address)
        messages.success(request, f"Confirmed: {', '.join(map(str, confirmed)) or 'none'}.")
        return None


@admin.register(SocialAccount)
class SocialAccountAdmin(_OfPeopleAdmin):
    """Sign-ins through an identity provider."""

    list_display = ("user", "provider", "uid", "date_joined", "last_login")
    list_filter = ("provider",)
    search_fields = ("user__email", "user__name", "uid")
    search_help_text = "The person's address or name, or the provider's id of them."
    date_hierarchy = "date_joined"
    ordering = ("-last_login",)
    fields = ("user", "provider", "uid", "date_joined", "last_login")


@admin.register(Group)
class GroupAdmin(AuditedMixin, StockGroupAdmin):
    """What operators who are not superusers may do here. Customers have roles in their workspaces instead."""

    list_display = ("name", "people", "rights")
    search_help_text = "The group's name."
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "permissions"),
                "description": "For operators who are not superusers: give them a group that may view or change.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        counts = {"people": Count("user", distinct=True), "rights": Count("permissions", distinct=True)}
        return super().get_queryset(request).annotate(**counts)

    @admin.display(ordering="people")
    def people(self, group: Any) -> int:
        return int(group.people)

    @admin.display(ordering="rights")
    def rights(self, group: Any) -> int:
        return int(group.rights)


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Which pages of this console were used to change what. The audit trail says what changed."""

    list_display = ("action_time", "user", "object_repr", "content_type", "action_flag")
    list_filter = ("action_flag",)
    list_select_related = ("user", "content_type")
    search_fields = ("object_repr", "user__email", "change_message")
    search_help_text = "What was changed, or the operator's address."
    date_hierarchy = "action_time"
    ordering = ("-action_time",)
