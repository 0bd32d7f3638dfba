"""Mails from templates: subject, text, and HTML with its styles written into the elements."""

from collections.abc import Mapping
from typing import Any

import css_inline
from django.conf import settings
from django.template.loader import render_to_string

from alerts.messages import InlineImage, Mail

# Rules such as those for dark screens cannot be written into elements: they stay in a style block.
_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)


def render_mail(name: str, context: Mapping[str, Any], images: tuple[InlineImage, ...] = ()) -> Mail:
    """The mail of `templates/emails/<name>.subject.txt`, `.txt` and `.html`, which extends `_mail_base.html`.

    The frame's footer takes `workspace_name`, `reason` (a sentence: why the reader gets it), `unsubscribe_url`
    (empty: nothing to unsubscribe from) and `settings_url` (empty: none).
    """
    facts = {"opsmeter_url": settings.OPSMETER_URL, **context}
    # One line, whatever is in a name: a line break would end the header.
    subject = " ".join(render_to_string(f"emails/{name}.subject.txt", facts).split())
    text = render_to_string(f"emails/{name}.txt", facts).strip() + "\n"
    html = _INLINER.inline(render_to_string(f"emails/{name}.html", facts | {"subject": subject}))
    return Mail(subject, text, html, images)
