"""The API's own description: the OpenAPI document and a page to browse it, both served without asking anyone else."""

import hashlib
from functools import cache
from typing import Any, ClassVar

from csp.constants import SELF, UNSAFE_INLINE
from csp.decorators import csp_update
from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.utils.http import quote_etag
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from opsmeter_site.lib.wire import WireView, conditional, encode

_MAX_AGE_SECONDS = 300


@extend_schema(exclude=True)
class OpenApiView(WireView):
    """The OpenAPI document as JSON; open to everyone."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    def get(self, request: Request) -> HttpResponse:
        """The document. It is the same for the life of the process."""
        return conditional(request, _document(), max_age=_MAX_AGE_SECONDS)


@cache
def _document() -> tuple[bytes, str]:
    """The document and its entity tag."""
    body = encode(SchemaGenerator().get_schema(request=None, public=True))  # type: ignore[no-untyped-call]
    return body, quote_etag(hashlib.sha256(body).hexdigest()[:32])


# Swagger UI sets style attributes; scripts stay under the strict policy.
@extend_schema(exclude=True)
@method_decorator(csp_update({"style-src": [SELF, UNSAFE_INLINE]}), name="dispatch")
class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI over the document, from files of our own; open to everyone."""

    authentication_classes: tuple[Any, ...] = ()
    permission_classes = (AllowAny,)
    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]
    url = "/v1/openapi.json"
    url_self = "/v1/docs"
