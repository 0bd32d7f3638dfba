"""People, workspaces and what lets them in."""

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower
from timezone_field import TimeZoneField

from opsmeter_site.lib.clock import utc_now


class CredentialState(models.TextChoices):
    """Whether a credential still opens anything."""

    LIVE = "live", "Live"
    EXPIRED = "expired", "Expired"
    REVOKED = "revoked", "Revoked"


def _credential_state(revoked_at: datetime | None, expires_at: datetime | None) -> CredentialState:
    if revoked_at is not None:
        return CredentialState.REVOKED
    if expires_at is not None and expires_at <= utc_now():
        return CredentialState.EXPIRED
    return CredentialState.LIVE


class UserManager(BaseUserManager["User"]):
    """Creates users by e-mail address; addresses are stored in lower case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Store a new user. Without a password nobody can sign in with one until it is set."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Store an operator of the service."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Signs in with an e-mail address."""

    email = models.EmailField("e-mail address", unique=True)
    name = models.CharField(max_length=150, blank=True)
    is_staff = models.BooleanField("operator", default=False, help_text="May sign in to this operators' console.")
    is_active = models.BooleanField(
        "active", default=True, help_text="Untick instead of deleting: the audit trail keeps the person's entries."
    )
    date_joined = models.DateTimeField(default=utc_now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = (models.UniqueConstraint(Lower("email"), name="user_email_unique_any_case"),)

    def __str__(self) -> str:
        return self.email


class Workspace(models.Model):
    """A tenant. Everything that is metered belongs to exactly one."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=60, unique=True, help_text="Names the workspace in addresses.")
    timezone = TimeZoneField(default="UTC", help_text="For charts, summaries and send times. Budgets count UTC days.")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    member_limit = models.PositiveIntegerField(
        null=True, editable=False, help_text="How many people the plan includes; empty means no limit. Set by billing."
    )
    members = models.ManyToManyField(User, through="Membership", related_name="workspaces")

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a member may do; each role includes the ones below it."""

    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    MEMBER = "member", "Member"
    VIEWER = "viewer", "Viewer"


class Membership(models.Model):
    """A person's role in a workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "user"], name="membership_unique_person"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_known"),
        )

    def __str__(self) -> str:
        return f"{self.user} · {self.get_role_display()}"


class Invitation(models.Model):
    """A membership offered to an e-mail address. Following the link that was mailed proves who owns the address."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField("e-mail address")
    role = models.CharField(max_length=10, choices=Role)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="invitations")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    sent_at = models.DateTimeField(default=utc_now, editable=False, help_text="When its latest link was mailed.")
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="invitation_unique_open",
            ),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="invitation_role_known"),
        )

    def __str__(self) -> str:
        return f"{self.email} · {self.get_role_display()}"

    @property
    def is_expired(self) -> bool:
        """Whether its link has become too old."""
        return self.expires_at <= utc_now()

    @property
    def is_open(self) -> bool:
        """Whether it can be accepted."""
        return self.accepted_at is None and self.revoked_at is None and not self.is_expired


class ApiKey(models.Model):
    """Lets programs send telemetry for one workspace. The identity outlives its secrets: rotation keeps the row."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    lookup = models.CharField(max_length=8, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    previous_lookup = models.CharField(max_length=8, unique=True, null=True, editable=False)
    previous_digest = models.BinaryField(max_length=32, null=True, editable=False)
    previous_expires_at = models.DateTimeField(
        null=True, editable=False, help_text="Until then the secret before the last rotation is accepted too."
    )
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="api_keys")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "API key"
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "name"], condition=models.Q(revoked_at=None), name="api_key_name_unique_live"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} (om_live_{self.lookup}_…)"

    @property
    def state(self) -> CredentialState:
        """Whether its current secret is accepted."""
        return _credential_state(self.revoked_at, self.expires_at)

    @property
    def is_in_grace(self) -> bool:
        """Whether the secret before the last rotation is accepted too."""
        until = self.previous_expires_at
        return self.state is CredentialState.LIVE and until is not None and until > utc_now()


class Scope(models.TextChoices):
    """What a personal access token may do on its person's behalf, within the person's role."""

    READ = "read", "Read"
    WRITE = "write", "Read and change"


def _default_scopes() -> list[str]:
    return [Scope.READ.value]


class AccessToken(models.Model):
    """A personal access token: one person, one workspace, for `Authorization: Bearer`."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="access_tokens")
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="access_tokens")
    name = models.CharField(max_length=100)
    lookup = models.CharField(max_length=8, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope), default=_default_scopes)
    created_at = models.DateTimeField(default=utc_now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    def __str__(self) -> str:
        return f"{self.name} (om_pat_{self.lookup}_…)"

    @property
    def state(self) -> CredentialState:
        """Whether its secret is accepted, as long as its person is a member."""
        return _credential_state(self.revoked_at, self.expires_at)


class AuditEntry(models.Model):
    """Who did what, when. Written in the transaction of the change; never changed afterwards."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, null=True, related_name="audit_entries")
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="audit_entries")
    action = models.CharField(max_length=60, help_text='Dotted, past tense: "api_key.revoked".')
    target = models.CharField(max_length=200, blank=True, help_text="What it was done to, as people would name it.")
    data = models.JSONField(default=dict, help_text="The values before and after; never a secret.")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = (models.Index(fields=["workspace", "-created_at"], name="audit_newest_first"),)

    def __str__(self) -> str:
        return f"{self.created_at:%Y-%m-%d %H:%M} {self.action} {self.target}"
