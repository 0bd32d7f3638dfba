"""Forms of channels: where one goes, which differs by kind, and what it takes."""

from collections.abc import Callable, Mapping
from typing import Any

from django import forms

from alerts.channel_services import ChannelWishes
from alerts.channels import MODULES
from alerts.models import Channel, ChannelKind, Severity
from opsmeter_site.lib.http import LONGEST_URL

_Fields = dict[str, forms.Field]


def _url(label: str, example: str) -> Callable[[], _Fields]:
    def make() -> _Fields:
        attributes = {"inputmode": "url", "autocomplete": "off", "spellcheck": "false", "placeholder": example}
        widget = forms.TextInput(attrs=attributes)
        return {"url": forms.CharField(label=label, max_length=LONGEST_URL, widget=widget)}

    return make


def _pagerduty() -> _Fields:
    widget = forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    regions = [("us", "US: app.pagerduty.com"), ("eu", "EU: app.eu.pagerduty.com")]
    return {
        "routing_key": forms.CharField(label="Integration key", max_length=100, widget=widget),
        "region": forms.ChoiceField(label="Service region", choices=regions),
    }


_ADDRESS_FIELDS: Mapping[ChannelKind, Callable[[], _Fields]] = {
    ChannelKind.SLACK: _url("Webhook URL", "https://hooks.slack.com/services/T…/B…/…"),
    ChannelKind.TEAMS: _url("Workflow URL", "https://….api.powerplatform.com/powerautomate/…"),
    ChannelKind.PAGERDUTY: _pagerduty,
    ChannelKind.WEBHOOK: _url("URL", "https://example.com/opsmeter"),
}


class AddressForm(forms.Form):
    """Where a channel of `kind` goes."""

    def __init__(self, *args: Any, kind: ChannelKind, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.update(_ADDRESS_FIELDS[kind]())

    @property
    def typed(self) -> dict[str, str]:
        """What the channel's module cleans."""
        return dict(self.cleaned_data)


class WishesForm(forms.Form):
    """What a channel is called and what it takes."""

    name = forms.CharField(
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="How it is called on pages and in the log, such as the name of the room or team.",
    )
    takes_alerts = forms.BooleanField(required=False, label="Alerts")
    minimum_severity = forms.ChoiceField(
        choices=Severity.choices,
        label="Alerts from this severity on",
        help_text="Warning leaves out what is only for information, such as a recovery.",
    )
    takes_summaries = forms.BooleanField(required=False, label="Daily and weekly summaries")

    def __init__(self, *args: Any, kind: ChannelKind, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not MODULES[kind].TAKES_SUMMARIES:
            del self.fields["takes_summaries"]

    @property
    def wishes(self) -> ChannelWishes:
        """For the services."""
        return ChannelWishes(
            name=self.cleaned_data["name"],
            minimum_severity=self.cleaned_data["minimum_severity"],
            takes_alerts=self.cleaned_data["takes_alerts"],
            takes_summaries=self.cleaned_data.get("takes_summaries", False),
        )


class NewChannelForm(WishesForm):
    """Both at once."""

    def __init__(self, *args: Any, kind: ChannelKind, **kwargs: Any) -> None:
        usual = {"name": kind.label, "takes_alerts": True, "takes_summaries": False, "minimum_severity": Severity.INFO}
        super().__init__(*args, kind=kind, initial=usual, **kwargs)
        address = _ADDRESS_FIELDS[kind]()
        self._address = tuple(address)
        self.fields.update(address)
        self.order_fields(["name", *address])

    @property
    def typed(self) -> dict[str, str]:
        """What the channel's module cleans."""
        return {name: self.cleaned_data[name] for name in self._address}


def filled_form(channel: Channel) -> WishesForm:
    """A form with what is stored."""
    stored = {name: getattr(channel, name) for name in ("name", "minimum_severity", "takes_alerts", "takes_summaries")}
    return WishesForm(kind=ChannelKind(channel.kind), initial=stored)
