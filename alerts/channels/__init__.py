"""The kinds of channel, one module each."""

from collections.abc import Mapping

from alerts.channels import email, pagerduty, slack, teams, webhook
from alerts.channels.base import ChannelModule
from alerts.models import ChannelKind

MODULES: Mapping[ChannelKind, ChannelModule] = {
    ChannelKind.EMAIL: email,
    ChannelKind.SLACK: slack,
    ChannelKind.TEAMS: teams,
    ChannelKind.PAGERDUTY: pagerduty,
    ChannelKind.WEBHOOK: webhook,
}
