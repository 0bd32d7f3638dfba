"""Settings, read strictly from the environment. `.env.example` lists every variable with its meaning."""

from pathlib import Path
from typing import Any

import environ
import structlog
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from opsmeter_site.lib.logs import is_worth_a_line, redact_secrets

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# Where this process runs: "local" (./opsmeter up), "test" or "production".
OPSMETER_ENV = env.str("OPSMETER_ENV", "production")
if OPSMETER_ENV not in {"local", "test", "production"}:
    raise ImproperlyConfigured("OPSMETER_ENV must be one of: local, test, production.")
IS_PRODUCTION = OPSMETER_ENV == "production"

DEBUG = env.bool("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY")
# Earlier keys, after a change: what they signed or encrypted stays readable.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
DATA_DIR = Path(env.str("OPSMETER_DATA", str(BASE_DIR / "var")))

INSTALLED_APPS = [
    "opsmeter_site.operators.apps.OperatorsConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.forms",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "timezone_field",
    "django_structlog",
    "workspaces",
    "ingest",
    "budgets",
    "billing",
    "alerts",
    "opsmeter_site",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "opsmeter_site.compression.PageCompression",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "workspaces.accounts.middleware.AccountPages",
]

ROOT_URLCONF = "opsmeter_site.urls"
WSGI_APPLICATION = "opsmeter_site.wsgi.application"
# Pages end with a slash and forgive its absence. Under /v1 every path matches a pattern, so nothing redirects there.
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "opsmeter_site.console.context.console",
            ],
        },
    },
]
FORM_RENDERER = "opsmeter_site.lib.forms.ConsoleRenderer"
# In the session and not in a cookie: a message may carry a secret that is shown once.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# --- Data -----------------------------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {"default": env.db_url("DATABASE_URL", engine="django.db.backends.postgresql")}
DATABASE_POOL_SIZE = env.int("DATABASE_POOL_SIZE", 0)
_database = DATABASES["default"]
_database.setdefault("OPTIONS", {})
_database["OPTIONS"] |= {"connect_timeout": 3, "application_name": "opsmeter"}
# A connection from before a restart of the database is noticed and replaced.
_database["CONN_HEALTH_CHECKS"] = True
if DATABASE_POOL_SIZE:
    # Threaded servers share few connections; prefork workers keep one each.
    _database["OPTIONS"]["pool"] = {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 5}
    _database["CONN_MAX_AGE"] = 0
else:
    _database["CONN_MAX_AGE"] = 60

REDIS_URL = env.str("REDIS_URL")
# Prefixes every key that Opsmeter itself writes, so that test runs can share a server.
REDIS_KEY_PREFIX = env.str("REDIS_KEY_PREFIX", "opsmeter")
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"{REDIS_KEY_PREFIX}:cache",
    }
}

# --- People and access ----------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "workspaces.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = ACCOUNT_LOGIN_ON_PASSWORD_RESET = True
ACCOUNT_EMAIL_CONFIRMATION_EXPIRE_DAYS = 3
ACCOUNT_EMAIL_CONFIRMATION_AUTHENTICATED_REDIRECT_URL = "account_email"
# One address per person: adding one means changing to it.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_ADAPTER = "workspaces.accounts.adapters.AccountAdapter"
ACCOUNT_FORMS = {
    "add_email": "workspaces.accounts.forms.AddEmailForm",
    "change_password": "workspaces.accounts.forms.ChangePasswordForm",
    "login": "workspaces.accounts.forms.LoginForm",
    "reauthenticate": "workspaces.accounts.forms.ReauthenticateForm",
    "reset_password": "workspaces.accounts.forms.ResetPasswordForm",
    "reset_password_from_key": "workspaces.accounts.forms.ResetPasswordKeyForm",
    "set_password": "workspaces.accounts.forms.SetPasswordForm",
    "signup": "workspaces.accounts.forms.SignupForm",
}
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Opsmeter"
# The operators' console sees every customer; for trying it out a password is enough.
OPERATORS_NEED_MFA = IS_PRODUCTION
MFA_ADAPTER = "workspaces.accounts.adapters.MfaAdapter"
MFA_FORMS = {
    "activate_totp": "workspaces.accounts.forms.ActivateTOTPForm",
    "authenticate": "workspaces.accounts.forms.AuthenticateForm",
    "reauthenticate": "workspaces.accounts.forms.CodeReauthenticateForm",
}
USERSESSIONS_ADAPTER = "workspaces.accounts.adapters.UserSessionsAdapter"
# How many proxies of our own stand in front: limits of sign-in per address would count a proxy as everybody.
ALLAUTH_TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", 0)

# Sign-in through one OpenID Connect provider, where there is one.
SOCIALACCOUNT_ADAPTER = "workspaces.accounts.adapters.SocialAccountAdapter"
SOCIALACCOUNT_FORMS = {"signup": "workspaces.accounts.forms.SocialSignupForm"}
# Afterwards the provider's name for the person counts, whatever becomes of the address.
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
OIDC_SERVER_URL = env.str("OIDC_SERVER_URL", "")
if OIDC_SERVER_URL:
    if IS_PRODUCTION and not OIDC_SERVER_URL.startswith("https://"):
        # What the provider says is believed because it came over TLS.
        raise ImproperlyConfigured("OIDC_SERVER_URL must begin with https://.")
    SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "OAUTH_PKCE_ENABLED": True,
            "APPS": [
                {
                    "provider_id": "sso",
                    "name": env.str("OIDC_NAME", "single sign-on"),
                    "client_id": env.str("OIDC_CLIENT_ID"),
                    "secret": env.str("OIDC_CLIENT_SECRET"),
                    "settings": {
                        "server_url": OIDC_SERVER_URL,
                        "email_authentication": env.bool("OIDC_TRUST_EMAIL", False),
                    },
                }
            ],
        }
    }

CSRF_FAILURE_VIEW = "opsmeter_site.api_errors.csrf_failure"

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PRODUCTION
SESSION_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", IS_PRODUCTION)
# A redirected POST is repeated as GET by most clients, and the row is lost; probes speak plain HTTP.
SECURE_REDIRECT_EXEMPT = [r"^v1/", r"^healthz$", r"^readyz$", r"^internal/"]
SECURE_HSTS_SECONDS = 31_536_000 if IS_PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = IS_PRODUCTION
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if env.bool("BEHIND_TLS_PROXY", False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

# The internal metrics page asks for this bearer token; without one it exists only outside production.
METRICS_TOKEN = env.str("METRICS_TOKEN", "")

# --- Time and language ----------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
USE_I18N = False
FORMAT_MODULE_PATH = "opsmeter_site.operators.formats"
USE_TZ = True
TIME_ZONE = "UTC"

# --- Static files ---------------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- Mail -----------------------------------------------------------------------------------------------------------

OUTBOX_DIR = DATA_DIR / "outbox"
# One of Anymail's providers, such as "postmark", with its own settings: ANYMAIL=POSTMARK_SERVER_TOKEN=…
ANYMAIL_PROVIDER = env.str("ANYMAIL_PROVIDER", "")
if ANYMAIL_PROVIDER:
    INSTALLED_APPS.append("anymail")
    ANYMAIL = env.dict("ANYMAIL", default={})
    EMAIL_BACKEND = f"anymail.backends.{ANYMAIL_PROVIDER}.EmailBackend"
elif OPSMETER_ENV == "local" and not env.str("EMAIL_URL", ""):
    EMAIL_BACKEND = "opsmeter_site.console.outbox.OutboxBackend"
else:
    EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://")
    vars().update(EMAIL_CONFIG)
# Some mail goes out while somebody waits for a page.
EMAIL_TIMEOUT = 10
# Where this installation is reached: what links in mails and messages begin with.
OPSMETER_URL = env.str("OPSMETER_URL", "http://127.0.0.1:8000").rstrip("/")
# Hosts that channels may call although they are private or speak plain HTTP; for tests and closed networks.
CHANNEL_HOSTS_ALLOWED = env.list("CHANNEL_HOSTS_ALLOWED", default=[])
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("DEFAULT_FROM_EMAIL", "Opsmeter <opsmeter@localhost>")

# --- Billing --------------------------------------------------------------------------------------------------------

# Without a key there is no billing: operators set plans in their console.
LEMONSQUEEZY_API_KEY = env.str("LEMONSQUEEZY_API_KEY", "")
LEMONSQUEEZY_WEBHOOK_SECRET = env.str("LEMONSQUEEZY_WEBHOOK_SECRET", "")
LEMONSQUEEZY_STORE_ID = env.str("LEMONSQUEEZY_STORE_ID", "")
# Whether the key is one of the provider's test mode. Messages of the other mode change nothing.
LEMONSQUEEZY_TEST_MODE = env.bool("LEMONSQUEEZY_TEST_MODE", False)
LEMONSQUEEZY_API_BASE = env.str("LEMONSQUEEZY_API_BASE", "https://api.lemonsqueezy.com/v1").rstrip("/")

# --- API ------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["workspaces.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "opsmeter_site.api_errors.handle_exception",
    "COERCE_DECIMAL_TO_STRING": False,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Opsmeter API",
    "VERSION": "1",
    "DESCRIPTION": (
        "Telemetry of LLM calls in; prices, exact counters, budgets and plan limits out. "
        "Opsmeter never stands in the path of a provider call."
    ),
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "ingest.gateway.openapi.add_gateway_endpoints",
    ],
}

# --- Background work ------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 7_200, "global_keyprefix": f"{REDIS_KEY_PREFIX}:celery:"}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 3_600
CELERY_TASK_SOFT_TIME_LIMIT = 3_300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"

# --- Logs -----------------------------------------------------------------------------------------------------------

_shared_processors: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    redact_secrets,
]
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_shared_processors,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"worth_a_line": {"()": "django.utils.log.CallbackFilter", "callback": is_worth_a_line}},
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer(),
            "foreign_pre_chain": _shared_processors,
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["worth_a_line"]},
    },
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
    # Celery says three times a minute that the heartbeat beats; django-structlog says what tasks did.
    "loggers": {name: {"level": "WARNING"} for name in ("celery.app.trace", "celery.worker.strategy", "celery.beat")},
}
DJANGO_STRUCTLOG_CELERY_ENABLED = True
