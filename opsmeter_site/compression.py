"""Compression of pages. The API's answers are small, and clients get them byte for byte as they are documented."""

from django.http import HttpRequest, HttpResponseBase
from django.middleware.gzip import GZipMiddleware

from opsmeter_site.api_errors import is_api_path


class PageCompression(GZipMiddleware):
    """Django's, for pages only. It masks CSRF tokens, so that sizes give none away."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """The answer, compressed if it is a page and the reader understands that."""
        return response if is_api_path(request.path_info) else super().process_response(request, response)
