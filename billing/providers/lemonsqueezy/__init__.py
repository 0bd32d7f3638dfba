"""Lemon Squeezy: its HTTP API and its webhooks, as its documentation and its captured messages show them."""

from billing.providers.lemonsqueezy.client import LemonSqueezy

__all__ = ["LemonSqueezy"]
