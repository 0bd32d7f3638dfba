"""The pages' forms about prices: an entry, an alias, a withdrawal, a sample request, a name to be tested.

Unit prices are typed as text, so that a browser sends what was typed, also if it is not a number. Moments are local:
use these forms inside `timezone.override(workspace.timezone)`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from ingest.catalog import check_unit_prices
from ingest.models import ServiceTier
from ingest.models.prices import SINCE_EVER, UNIT_PRICE_FIELDS
from ingest.price_names import canonical_provider, clean
from ingest.price_tables import UnitPrices
from opsmeter_site.lib.clock import utc_now

LATEST_START = timedelta(days=3 * 365)
MOST_TOKENS = 1_000_000_000
SAMPLE_INPUT, SAMPLE_OUTPUT = 1_000, 500


class _Moment(forms.DateTimeField):
    """A local moment to the minute; whatever a calendar or a timezone cannot hold is refused."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    def to_python(self, value: Any) -> datetime | None:
        """The moment in UTC."""
        try:
            moment = super().to_python(value)
            return None if moment is None else moment.astimezone(UTC)
        except (OverflowError, ValueError) as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from error


def _name(label: str, max_length: int, help_text: str = "", **attrs: str) -> forms.CharField:
    plain = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
    widget = forms.TextInput(attrs=plain | attrs)
    return forms.CharField(label=label, max_length=max_length, help_text=help_text, widget=widget)


def _provider(help_text: str = "") -> forms.CharField:
    # The page brings the list of known hosts (_prices_hosts.html).
    return _name("Provider", 100, help_text, list="price-hosts")


def _unit_price(label: str, help_text: str = "") -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=False,
        max_digits=30,
        decimal_places=18,
        help_text=help_text,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 12}),
    )


def _tokens(label: str, initial: int) -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        min_value=0,
        max_value=MOST_TOKENS,
        initial=initial,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off", "size": 9}),
    )


class PriceEntryForm(forms.Form):
    """A new price: of the catalogue, or of one workspace. What is doubtful is asked about by the page's second step."""

    provider = _provider("Who hosts it. Hosts never share prices.")
    model = _name("Model", 200, help_text="The name that your requests say.")
    input_usd_per_1m = _unit_price("Input", "Not from the cache.")
    output_usd_per_1m = _unit_price("Output", "Reasoning included.")
    cached_input_usd_per_1m = _unit_price("Cached input", "Empty: the input price.")
    cache_write_usd_per_1m = _unit_price("Cache write", "Empty: the input price.")
    request_usd_per_1k = _unit_price("Per 1,000 calls", "On top of the tokens. Empty: nothing.")
    effective_from = _Moment(label="Holds from")
    service_tier = forms.ChoiceField(
        label="Service tier",
        choices=ServiceTier.choices,
        initial=ServiceTier.STANDARD,
        help_text="As requests report it.",
    )
    context_above = forms.IntegerField(
        label="Only above so many input tokens",
        min_value=0,
        max_value=MOST_TOKENS,
        initial=0,
        help_text="0: the base price.",
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )
    source_url = forms.URLField(
        label="Where it says so",
        required=False,
        max_length=500,
        assume_scheme="https",
        help_text="The host's price page or your contract. Optional.",
    )
    is_meant = forms.BooleanField(label="I have checked it: the price is meant so", required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = timezone.get_current_timezone_name()
        self.fields["effective_from"].help_text = f"For requests that happen from then on. Time in {zone}."

    def clean_provider(self) -> str:
        """The host's name as the catalogue writes it."""
        return canonical_provider(self.cleaned_data["provider"])

    def clean_model(self) -> str:
        """The name as the catalogue writes it."""
        return clean(self.cleaned_data["model"])

    def clean_effective_from(self) -> datetime:
        """Not before time began for prices, and not in another age."""
        moment: datetime = self.cleaned_data["effective_from"]
        latest = utc_now() + LATEST_START
        if not SINCE_EVER <= moment <= latest:
            raise ValidationError(f"Between {SINCE_EVER:%Y} and {latest:%B %Y}.")
        return moment

    def clean(self) -> dict[str, Any]:
        """What could not be charged is refused here already, before the second step."""
        super().clean()
        if not self.errors:
            try:
                check_unit_prices(self.unit_prices())
            except ValidationError as error:
                self.add_error(None, error)
        return self.cleaned_data

    def unit_prices(self) -> UnitPrices:
        """The unit prices that were entered."""
        return UnitPrices(*(self.cleaned_data[name] for name in UNIT_PRICE_FIELDS))

    def entry(self) -> dict[str, Any]:
        """What was entered, as the services take it."""
        plain = ("provider", "model", "effective_from", "service_tier", "context_above", "source_url")
        return {name: self.cleaned_data[name] for name in plain} | {"unit_prices": self.unit_prices()}


class AliasForm(forms.Form):
    """Which model of the same host a name means."""

    provider = _provider()
    alias = _name("Name", 200)
    model = _name("Costs the same as", 200, help_text="The id of a model of the same host in the catalogue.")


class WithdrawForm(forms.Form):
    """From when on an own price no longer holds."""

    since = forms.ChoiceField(
        label="Withdraw it",
        choices=[("now", "from now on"), ("start", "from its beginning, as if it had not been there")],
        initial="now",
        widget=forms.RadioSelect,
    )


class SampleForm(forms.Form):
    """A request whose cost is shown."""

    input = _tokens("Input tokens", SAMPLE_INPUT)
    output = _tokens("Output tokens", SAMPLE_OUTPUT)


class NameTestForm(forms.Form):
    """A request whose price is looked up, and how."""

    provider = _provider()
    model = _name("Model", 200)
    tier = forms.ChoiceField(label="Service tier", choices=ServiceTier.choices, initial=ServiceTier.STANDARD)
    at = _Moment(label="At, if not now", required=False)
    input = _tokens("Input tokens", SAMPLE_INPUT)
    output = _tokens("Output tokens", SAMPLE_OUTPUT)


def with_defaults(form: type[forms.Form], params: Mapping[str, str]) -> dict[str, str]:
    """`params` of a query string for `form`, with the form's initial values in place of what is missing."""
    initial = {name: str(field.initial) for name, field in form.base_fields.items() if field.initial is not None}
    return initial | {name: value for name, value in params.items() if name in form.base_fields}
