"""Readers of the developer docs."""

from collections.abc import Callable

import pytest

from billing.plans import Overrides
from billing.services import change_workspace_plan
from tests.docs import Visitor, new_person


@pytest.fixture
def person_of(committed, server) -> Callable[..., Visitor]:
    """Somebody signed in on the running server, with the first key of a workspace of their own in every example."""

    def make(**overrides: int) -> Visitor:
        visitor = new_person(f"127.0.0.1:{server.port}")
        if overrides:
            change_workspace_plan(
                visitor.workspace, plan_tier="free", overrides=Overrides(**overrides), acting_user=None
            )
        return visitor

    return make


@pytest.fixture
def reader(committed) -> Visitor:
    return new_person()
