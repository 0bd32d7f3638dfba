"""The settings under test: the real ones, with a cheap password hash and secrets of its own."""

import os

os.environ.setdefault("SECRET_KEY", "only-for-tests")
os.environ.setdefault("OPSMETER_ENV", "test")
os.environ.setdefault("LOG_LEVEL", "WARNING")
# Parallel test processes share one Redis and must not see each other.
os.environ["REDIS_KEY_PREFIX"] = f"opsmeter-test-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"

from opsmeter_site.settings import *  # noqa: F403 (the environment above must be set first)

ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
# Static files straight from where they are: nothing is collected before a test run.
WHITENOISE_AUTOREFRESH = True
WHITENOISE_USE_FINDERS = True
