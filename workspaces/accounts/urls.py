"""Everything below `/accounts/`: django-allauth's addresses, some with views of our own."""

from django.urls import include, path, re_path

from workspaces.accounts import views

urlpatterns = [
    path("confirm-email/new/", views.new_confirmation, name="account_new_confirmation"),
    re_path(r"^confirm-email/(?P<key>[-:\w]+)/$", views.Confirm.as_view(), name="account_confirm_email"),
    path("2fa/totp/activate/", views.TurnOn.as_view(), name="mfa_activate_totp"),
    path("2fa/totp/deactivate/", views.TurnOff.as_view(), name="mfa_deactivate_totp"),
    path("2fa/recovery-codes/", views.RecoveryCodes.as_view(), name="mfa_view_recovery_codes"),
    path("2fa/recovery-codes/download/", views.RecoveryCodesFile.as_view(), name="mfa_download_recovery_codes"),
    path("sessions/", views.Sessions.as_view(), name="usersessions_list"),
    path("", include("allauth.urls")),
]
