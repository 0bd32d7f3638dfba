"""`/v1/budgets` asked by a test."""

import json
from datetime import UTC, datetime
from decimal import Decimal

PATH = "/v1/budgets"
WISH = {"scope": "tenantId", "scopeValue": "acme", "limitUsd": 50}
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def body_of(response, status=200):
    assert response.status_code == status, response.content
    return json.loads(response.content, parse_float=Decimal)


def create(client, **changes):
    return body_of(client.send("POST", PATH, WISH | changes), 201)


def place(budget, *rest):
    return "/".join((PATH, budget["id"], *rest))
