"""Forms of pages: how a field looks, and how a service's refusal is shown beside it."""

import re

from django.forms import BaseForm
from django.forms.renderers import TemplatesSetting

from opsmeter_site.lib.errors import OpsmeterError


class ConsoleRenderer(TemplatesSetting):
    """Every field of a page in one template: label, help, widget, error."""

    field_template_name = "forms/field.html"


def add_refusal(form: BaseForm, refusal: OpsmeterError) -> None:
    """Show `refusal` in `form`: each error beside its field (camelCase or snake_case), the others above the form."""
    for error in refusal.errors:
        name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", error.field).lower()
        form.add_error(name if name in form.fields else None, error.message)
    if not refusal.errors:
        form.add_error(None, refusal.message)
