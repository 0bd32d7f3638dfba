"""What `./opsmeter up --billing-sandbox` puts into the database, at the first start and at every later one."""

import json
from pathlib import Path

import pytest

from billing.models import PlanVariant
from opsmeter_site.embedded.prepare import SANDBOX_VARIANTS, map_sandbox_variants, set_up_billing_demo
from tests.factories import make_workspace
from workspaces.models import Role, Workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo_file(tmp_path: Path) -> Path:
    """As the set-up of the demo has left it."""
    opened = make_workspace("team")
    file = tmp_path / "demo.json"
    file.write_text(json.dumps({"email": opened.owner.email, "apiKey": "om_live_1"}))
    return file


def own_workspaces(file: Path) -> list[str]:
    email = json.loads(file.read_text())["email"]
    owned = Workspace.objects.filter(name="Billing demo", memberships__user__email=email, memberships__role=Role.OWNER)
    return list(owned.values_list("slug", flat=True))


def test_there_is_one_workspace_on_free_to_try_billing_with(demo_file):
    set_up_billing_demo(demo_file)
    kept = json.loads(demo_file.read_text())
    (slug,) = own_workspaces(demo_file)
    assert (kept["billingWorkspaceSlug"], kept["apiKey"]) == (slug, "om_live_1")
    assert Workspace.objects.get(slug=slug).plan.plan.tier == "free"

    set_up_billing_demo(demo_file)
    assert json.loads(demo_file.read_text()) == kept
    assert own_workspaces(demo_file) == [slug]


def test_it_is_found_again_when_the_demo_got_new_credentials(demo_file):
    set_up_billing_demo(demo_file)
    (slug,) = own_workspaces(demo_file)
    kept = json.loads(demo_file.read_text())
    demo_file.write_text(json.dumps({"email": kept["email"], "apiKey": "om_live_2"}))
    set_up_billing_demo(demo_file)
    assert json.loads(demo_file.read_text()) == {**kept, "apiKey": "om_live_2"}
    assert own_workspaces(demo_file) == [slug]


def test_every_variant_of_the_double_means_a_plan_however_often_it_is_said():
    for _ in range(2):
        map_sandbox_variants()
        mapped = PlanVariant.objects.filter(is_offered=True)
        rows = mapped.values_list("plan__tier", "interval", "variant_id", "price_text")
        assert set(SANDBOX_VARIANTS) == set(rows)
