"""A plan is edited while a workspace moves onto it: the workspace ends up with the new facts, whoever commits first."""

import pytest

from billing.models import Plan
from billing.services import change_workspace_plan, update_plan
from ingest.models import WorkspacePolicy
from tests.factories import make_workspace
from tests.races import while_uncommitted

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("_redis_used")]


@pytest.fixture
def workspace():
    return make_workspace("free").workspace


@pytest.fixture
def move(workspace):
    return lambda: change_workspace_plan(workspace, plan_tier="pro", acting_user=None)


@pytest.fixture
def edit(workspace):
    pro = Plan.objects.get(tier="pro")
    return lambda: update_plan(pro, requests_per_minute=700, acting_user=None)


def test_an_edit_reaches_a_workspace_that_is_just_moving_onto_the_plan(workspace, move, edit):
    while_uncommitted(move, edit)
    assert WorkspacePolicy.objects.get(workspace=workspace).requests_per_minute == 700


def test_a_workspace_that_moves_onto_a_plan_under_edit_gets_the_new_facts(workspace, move, edit):
    while_uncommitted(edit, move)
    assert WorkspacePolicy.objects.get(workspace=workspace).requests_per_minute == 700
