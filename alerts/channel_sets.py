"""A workspace's channels: the one for e-mail always exists."""

from uuid import UUID

from alerts.models import Channel, ChannelKind, ChannelState


def email_channel(workspace_id: UUID) -> Channel:
    """The workspace's channel for mail; made on first use."""
    channel, _ = Channel.objects.get_or_create(
        workspace_id=workspace_id,
        kind=ChannelKind.EMAIL,
        defaults={"name": "E-mail", "takes_summaries": True, "hint": "Recipients of this workspace"},
    )
    return channel


def all_channels(workspace_id: UUID) -> list[Channel]:
    """Every channel, e-mail first, then the oldest."""
    email_channel(workspace_id)
    channels = Channel.objects.filter(workspace_id=workspace_id).order_by("created_at", "pk")
    return sorted(channels, key=lambda channel: channel.kind != ChannelKind.EMAIL)


def active_channels(workspace_id: UUID) -> list[Channel]:
    """The channels that take messages now, in the same order."""
    return [channel for channel in all_channels(workspace_id) if channel.state == ChannelState.ACTIVE]
