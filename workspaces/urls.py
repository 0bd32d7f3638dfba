"""Pages of people and workspaces: below `/w/<slug>/`, and outside any workspace."""

from django.urls import path

from workspaces.views import audit, general, invitations, keys, members, tokens

page_urlpatterns = [
    path("settings/", general.general, name="settings-general"),
    path("settings/leave/", members.leave, name="settings-leave"),
    path("settings/members/", members.members, name="settings-members"),
    path("settings/members/<int:member_id>/role/", members.member_role, name="settings-member-role"),
    path("settings/members/<int:member_id>/remove/", members.member_remove, name="settings-member-remove"),
    path(
        "settings/members/invitations/<int:invitation_id>/resend/",
        members.invitation_resend,
        name="settings-invitation-resend",
    ),
    path(
        "settings/members/invitations/<int:invitation_id>/revoke/",
        members.invitation_revoke,
        name="settings-invitation-revoke",
    ),
    path("settings/keys/", keys.keys, name="settings-keys"),
    path("settings/keys/<int:key_id>/rotate/", keys.key_rotate, name="settings-key-rotate"),
    path("settings/keys/<int:key_id>/expiry/", keys.key_expiry, name="settings-key-expiry"),
    path("settings/keys/<int:key_id>/revoke/", keys.key_revoke, name="settings-key-revoke"),
    path("settings/tokens/", tokens.tokens, name="settings-tokens"),
    path("settings/tokens/<int:token_id>/revoke/", tokens.token_revoke, name="settings-token-revoke"),
    path("settings/audit/", audit.audit, name="settings-audit"),
    path("settings/audit/audit.csv", audit.audit_csv, name="settings-audit-csv"),
]
site_urlpatterns = [path("invitations/<str:token>/", invitations.invitation, name="invitation")]
