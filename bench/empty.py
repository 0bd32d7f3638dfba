"""The yardstick: a Django project with one view that does nothing, and no middleware."""

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path

if not settings.configured:
    settings.configure(SECRET_KEY="yardstick", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], USE_TZ=True)

from django.core.wsgi import get_wsgi_application


def nothing(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"ok": True})


urlpatterns = [path("empty", nothing)]
application = get_wsgi_application()
