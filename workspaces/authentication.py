"""Who calls the REST API: a person's access token (Bearer) or a workspace's API key, and what each may do."""

from dataclasses import dataclass
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from opsmeter_site.lib import tokens
from opsmeter_site.lib.clock import utc_now
from workspaces.access import role_includes
from workspaces.keys import ACCESS_TOKEN_PREFIX, identify_api_key, note_use
from workspaces.models import AccessToken, Membership, Role, Scope, User, Workspace


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """`request.auth` of a Bearer request: one person in one workspace, no further than the token's scopes."""

    workspace: Workspace
    role: Role
    scopes: frozenset[str]
    token_id: int


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """`request.user` and `request.auth` of an X-API-Key request: a program of one workspace. It only reads."""

    workspace: Workspace
    key_id: int
    created_by_id: int
    role: Role = Role.VIEWER
    scopes: frozenset[str] = frozenset({Scope.READ.value})
    is_authenticated: bool = True
    is_active: bool = True
    pk: None = None


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer om_pat_…`. 401 `invalid_token` for anything but a live token of a member."""

    missing_reason = "missing_token"
    missing_message = "Send a personal access token: Authorization: Bearer om_pat_…"

    def authenticate(self, request: Request) -> tuple[User, TokenAccess] | None:
        """The person and the access, or None without a Bearer header."""
        scheme, _, credential = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = self._live_token(credential.strip())
        if token is None:
            raise self._refusal()
        if not token.user.is_active:
            raise self._refusal()
        membership = Membership.objects.filter(workspace=token.workspace_id, user=token.user_id).first()
        if membership is None:
            raise self._refusal()
        note_use(token, utc_now())
        access = TokenAccess(
            workspace=token.workspace,
            role=Role(membership.role),
            scopes=frozenset(token.scopes),
            token_id=token.pk,
        )
        return token.user, access

    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401."""
        return "Bearer"

    @staticmethod
    def _live_token(plain: str) -> AccessToken | None:
        lookup = tokens.lookup_of(plain, ACCESS_TOKEN_PREFIX)
        if lookup is None:
            return None
        token = AccessToken.objects.select_related("user", "workspace").filter(lookup=lookup, revoked_at=None).first()
        if token is None:
            return None
        if not tokens.matches(plain, bytes(token.digest)):
            return None
        if token.expires_at is not None and token.expires_at <= utc_now():
            return None
        return token

    @staticmethod
    def _refusal() -> exceptions.AuthenticationFailed:
        return exceptions.AuthenticationFailed(
            "The access token is unknown, expired or revoked, or its person is no longer a member.",
            code="invalid_token",
        )


class ApiKeyAuthentication(BaseAuthentication):
    """`X-API-Key: om_live_…`. 401 `invalid_api_key` for anything but a live key."""

    missing_reason = "missing_api_key"
    missing_message = "Send the workspace's API key: X-API-Key: om_live_…"

    def authenticate(self, request: Request) -> tuple[KeyAccess, KeyAccess] | None:
        """The key's access twice (it is user and credential in one), or None without the header."""
        plain = request.headers.get("X-API-Key", "").strip()
        if not plain:
            return None
        identity = identify_api_key(plain)
        if identity is None:
            raise exceptions.AuthenticationFailed("The API key is unknown, expired or revoked.", code="invalid_api_key")
        access = KeyAccess(
            workspace=Workspace.objects.get(pk=identity.workspace_id),
            key_id=identity.key_id,
            created_by_id=identity.created_by_id,
        )
        return access, access

    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401; without one DRF would answer 403."""
        return "ApiKey"


class _ScopedPermission(BasePermission):
    """Asks for a credential, a scope and a role. A missing credential is 401, the rest 403 `not_allowed`."""

    code = "not_allowed"
    scopes: frozenset[str]
    minimum_role: Role

    def has_permission(self, request: Request, view: Any) -> bool:
        access = request.auth
        if not isinstance(access, TokenAccess | KeyAccess):
            raise _missing_credential(request)
        if not access.scopes & self.scopes:
            return False
        return role_includes(access.role, self.minimum_role)


class CanRead(_ScopedPermission):
    """Every member and every key, with either scope: "write" includes "read"."""

    message = "This credential may not read here."
    scopes = frozenset({Scope.READ.value, Scope.WRITE.value})
    minimum_role = Role.VIEWER


class CanWrite(_ScopedPermission):
    """Owners and admins whose token has the scope "write"."""

    message = 'This needs an access token with the scope "write" of an owner or admin.'
    scopes = frozenset({Scope.WRITE.value})
    minimum_role = Role.ADMIN


def _missing_credential(request: Request) -> exceptions.NotAuthenticated:
    first = next(iter(request.authenticators or ()), None)
    if isinstance(first, BearerAuthentication | ApiKeyAuthentication):
        return exceptions.NotAuthenticated(first.missing_message, code=first.missing_reason)
    return exceptions.NotAuthenticated()


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes `BearerAuthentication` in the OpenAPI document."""

    target_class = BearerAuthentication
    name = "BearerToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """The OpenAPI security scheme."""
        return {"type": "http", "scheme": "bearer", "description": "A personal access token (`om_pat_…`)."}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes `ApiKeyAuthentication` in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = "ApiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """The OpenAPI security scheme."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "A workspace's API key (`om_live_…`).",
        }
