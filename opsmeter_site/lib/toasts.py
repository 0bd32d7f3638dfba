"""Messages after a change. A reversible change brings its own way back."""

import json
from collections.abc import Mapping, Sequence

from django.contrib import messages
from django.http import HttpRequest

UNDO_TAG = "undo:"


def toast_with_undo(request: HttpRequest, text: str, *, url: str, values: Mapping[str, str | Sequence[str]]) -> None:
    """Say that something was changed, with a button that posts `values` (the old ones) to `url`."""
    fields = [
        (name, each) for name, value in values.items() for each in ([value] if isinstance(value, str) else list(value))
    ]
    messages.success(request, text, extra_tags=UNDO_TAG + json.dumps({"url": url, "fields": fields}))
