"""What an export is asked for with: the filters of requests, and what its rows are and how they are written."""

from collections.abc import Mapping
from typing import Any

from django import forms

from ingest.export_files import Outline
from ingest.export_rows import ROLLUP_FILTERS, Wish, fixed
from ingest.models import ExportFormat, ExportWhat
from ingest.page_filters import COLUMN_OF, RequestFilterForm
from workspaces.models import Workspace

_USUAL = {"what": ExportWhat.REQUESTS.value, "format": ExportFormat.CSV.value}
_USUAL_RANGE = {"range": "30d"}


class ExportForm(RequestFilterForm):
    """The filters of an export. Sums can be narrowed only by what they know."""

    in_view = frozenset({"what", "format", "range", "from", "to", "model", "endpoint"})

    def __init__(self, data: Mapping[str, str], **options: Any) -> None:
        # An empty range means everything; only an address that says nothing at all gets the usual one.
        super().__init__({**_USUAL, **(data or _USUAL_RANGE)}, **options)
        self.fields["what"] = forms.ChoiceField(label="Rows", choices=ExportWhat.choices)
        self.fields["format"] = forms.ChoiceField(label="Format", choices=ExportFormat.choices)

    def clean(self) -> dict[str, Any]:
        """Refuse filters that the chosen rows do not know."""
        data = super().clean()
        if data.get("what") in (ExportWhat.QUARTER_HOURS, ExportWhat.DAYS):
            for name, column in COLUMN_OF.items():
                if data.get(name) not in (None, "") and column not in ROLLUP_FILTERS:
                    self.add_error(name, "Sums do not know this. Empty it, or export requests.")
        return data

    def outline(self, workspace: Workspace) -> Outline:
        """The file that is asked for, as of now. After `is_valid` has said yes."""
        data = self.cleaned_data
        wish = fixed(Wish(workspace.pk, data["what"], self.zone, self.filters()))
        words = [(chip.label, chip.value) for chip in self.chips() if chip.label not in _NO_FILTERS]
        return Outline(wish, data["format"], workspace.slug, self.now, words)


_NO_FILTERS = frozenset({"Range", "Rows", "Format"})
