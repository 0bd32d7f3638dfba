import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine

from alerts.models import Rule
from alerts.rules.spikes import SpikeRule, spike_rules
from tests.alerts.rolled import roll
from tests.factories import make_cast, make_workspace
from tests.ledger import make_event
from tests.pages import page, signed_in

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 20, tzinfo=UTC)
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
UNIT_COST = {"dimension": "endpoint_tag", "value": "checkout", "threshold_usd": "0.02", "minimum_requests": "20"}
SPENDER = {"dimension": "tenant_id", "threshold_usd": "50", "period": "day"}


@pytest.fixture(autouse=True)
def _now():
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


def address(cast, rest=""):
    return f"/w/{cast.workspace.slug}/settings/alerts/rules/{rest}"


def make_rule(cast, **facts):
    usual = {"kind": "unit_cost", "dimension": "endpoint_tag", "threshold_usd": Decimal("0.02")}
    return Rule.objects.create(workspace=cast.workspace, **usual | facts)


def toasts(response):
    return [str(message) for message in response.context["messages"]]


def errors(response):
    return dict(response.context["form"].errors)


class TestPage:
    def test_without_rules_it_says_what_they_are_for(self, cast):
        text = page(signed_in(cast.admin).get(address(cast))).text
        assert "Say what a request of an endpoint or model may cost on average" in text
        assert "Say what one tenant or user may cost in a day or month" in text

    @pytest.mark.parametrize(("role", "may_change"), [("viewer", False), ("member", False), ("admin", True)])
    def test_everyone_reads_and_admins_change(self, cast, role, may_change):
        make_rule(cast)
        shown = page(signed_in(getattr(cast, role)).get(address(cast)))
        assert "Each endpoint" in shown.text
        assert ("Add a rule" in shown.text) is may_change
        assert bool(shown.all("form", id="spikes")) is may_change
        assert ("Change" in shown.text) is may_change

    def test_each_rule_says_how_it_stands(self, cast):
        make_rule(cast)
        make_rule(cast, value="reports", threshold_usd=Decimal(5))
        make_rule(cast, dimension="model", value="gpt-9", minimum_requests=50)
        make_rule(cast, dimension="model", is_enabled=False)
        make_rule(cast, kind="spender_over", dimension="tenant_id", period="day", threshold_usd=Decimal(50))
        make_event(cast.workspace, occurred_at=NOW, tenant_id="acme", model="gpt-9", cost_usd=Decimal("62.1"))
        for endpoint, usd in (("checkout", 1), ("search", 2), ("reports", 3)):
            roll(cast.workspace, NOW, usd, requests=20, endpoint_tag=endpoint)
        rows = page(signed_in(cast.viewer).get(address(cast))).rows()
        assert rows == [
            [
                "Each endpoint",
                "$0.02 a request, from 20 on in the last hour",
                "$0.100 search a request, 20 priced requests in the last hour",
                "2 over",
            ],
            [
                "Endpoint reports",
                "$5.00 a request, from 20 on in the last hour",
                "$0.150 reports a request, 20 priced requests in the last hour",
                "Below",
            ],
            [
                "Model gpt-9",
                "$0.02 a request, from 50 on in the last hour",
                "Too few priced requests in the last hour to say: at most 1",
                "Watching",
            ],
            [
                "Each model",
                "$0.02 a request, from 20 on in the last hour",
                "$0.100 gpt-4o-mini a request, 60 priced requests in the last hour",
                "Off",
            ],
            ["Any one tenant", "$50.00 a UTC day", "$62.10 acme this UTC day", "1 over"],
        ]

    def test_the_spike_is_compared_right_now(self, cast):
        for week in range(5):
            roll(cast.workspace, NOW - 2 * HOUR - week * WEEK, 30 if week == 0 else 4)
        text = page(signed_in(cast.viewer).get(address(cast))).text
        assert "10:00 to 13:00 on 10 Nov 2026 (Europe/Berlin) $30.00 Usual in these hours $4.00 mean of 4 weeks" in text
        assert "Spend spikes Spike" in text

    def test_plans_without_them_keep_rules_and_say_so(self):
        cast = make_cast("starter")
        make_rule(cast)
        make_rule(cast, kind="spender_over", dimension="tenant_id", period="day")
        shown = page(signed_in(cast.viewer).get(address(cast)))
        assert "Spend spikes and unit costs are part of Pro and above." in shown.text
        assert [row[-1] for row in shown.rows()] == ["Not in your plan", "Watching"]
        new = signed_in(cast.admin).get(address(cast, "new/?kind=unit_cost"))
        assert "Unit costs are part of Pro and above. The rule is kept, but not evaluated" in page(new).text

    def test_outsiders_find_nothing(self, cast):
        assert signed_in(cast.outsider).get(address(cast)).status_code == 404


class TestSpikes:
    def stored(self, cast):
        return spike_rules([cast.workspace.pk])[cast.workspace.pk]

    def test_saving_can_be_undone(self, cast):
        client = signed_in(cast.admin)
        answer = client.post(address(cast), {"factor": "2.5", "minimum_usd": "10"}, follow=True)
        assert self.stored(cast) == SpikeRule(False, Decimal("2.5"), Decimal(10))
        assert "The watch for spend spikes is saved." in toasts(answer)
        fields = dict(_undo(answer))
        assert fields == {"factor": "3", "minimum_usd": "5", "is_on": "on"}
        client.post(address(cast), fields)
        assert self.stored(cast) == SpikeRule(True, Decimal(3), Decimal(5))

    @pytest.mark.parametrize("factor", ["1", "many", ""])
    def test_what_makes_no_sense_is_refused_beside_its_field(self, cast, factor):
        answer = signed_in(cast.admin).post(address(cast), {"factor": factor, "minimum_usd": "5"})
        assert answer.status_code == 422
        assert list(errors(answer)) == ["factor"]

    def test_nothing_different_is_nothing_saved(self, cast):
        answer = signed_in(cast.admin).post(
            address(cast), {"factor": "3", "minimum_usd": "5", "is_on": "on"}, follow=True
        )
        assert toasts(answer) == ["Nothing was different, so nothing was saved."]

    def test_members_cannot(self, cast):
        assert signed_in(cast.member).post(address(cast), {"factor": "2", "minimum_usd": "5"}).status_code == 403


def _undo(answer):
    (message,) = answer.context["messages"]
    return json.loads(message.extra_tags.removeprefix("undo:"))["fields"]


class TestRules:
    @pytest.mark.parametrize(("kind", "fields"), [("unit_cost", UNIT_COST), ("spender_over", SPENDER)])
    def test_an_admin_adds_one(self, cast, kind, fields):
        client = signed_in(cast.admin)
        assert client.get(address(cast, f"new/?kind={kind}")).status_code == 200
        answer = client.post(address(cast, f"new/?kind={kind}"), fields | {"is_enabled": "on"}, follow=True)
        assert answer.status_code == 200
        rule = Rule.objects.get()
        assert (rule.kind, rule.dimension, rule.is_enabled) == (kind, fields["dimension"], True)

    def test_a_name_without_traffic_is_allowed_with_a_warning(self, cast):
        roll(cast.workspace, NOW, 1, endpoint_tag="checkout")
        client = signed_in(cast.admin)
        assert len(toasts(client.post(address(cast, "new/"), UNIT_COST, follow=True))) == 1
        answer = client.post(address(cast, "new/"), UNIT_COST | {"value": "chekout"}, follow=True)
        assert "No traffic of the last 30 days matches this yet: endpoint chekout." in toasts(answer)[1]

    def test_known_endpoints_and_models_are_suggested(self, cast):
        roll(cast.workspace, NOW, 1, endpoint_tag="checkout", model="gpt-4o")
        shown = page(signed_in(cast.admin).get(address(cast, "new/")))
        options = [(each.attributes["value"], each.attributes["label"]) for each in shown.all("option")]
        assert options == [("checkout", "Endpoint"), ("gpt-4o", "Model")]
        assert shown.one("input", name="value").attributes["list"] == shown.one("datalist").attributes["id"]

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"threshold_usd": "0"}, "threshold_usd"),
            ({"threshold_usd": "a lot"}, "threshold_usd"),
            ({"threshold_usd": "1e30"}, "threshold_usd"),
            ({"minimum_requests": "0"}, "minimum_requests"),
            ({"dimension": "tenant_id"}, "dimension"),
            ({"value": "x" * 300}, "value"),
        ],
    )
    def test_what_makes_no_sense_is_refused_beside_its_field(self, cast, fields, field):
        answer = signed_in(cast.admin).post(address(cast, "new/"), UNIT_COST | fields)
        assert answer.status_code == 422
        assert list(errors(answer)) == [field]
        assert not Rule.objects.exists()

    def test_a_second_rule_about_the_same_is_refused(self, cast):
        make_rule(cast, value="checkout")
        answer = signed_in(cast.admin).post(address(cast, "new/"), UNIT_COST)
        assert errors(answer) == {"dimension": ["There is a rule about this already. Change that one."]}

    def test_an_unknown_kind_is_not_there(self, cast):
        assert signed_in(cast.admin).get(address(cast, "new/?kind=weather")).status_code == 404

    def test_an_admin_changes_one(self, cast):
        rule = make_rule(cast, value="checkout")
        client = signed_in(cast.admin)
        shown = page(client.get(address(cast, f"{rule.pk}/")))
        assert shown.one("input", name="threshold_usd").attributes["value"] == "0.02"
        answer = client.post(address(cast, f"{rule.pk}/"), UNIT_COST | {"threshold_usd": "0.5"}, follow=True)
        assert "The rule is saved and holds from now on." in toasts(answer)
        rule.refresh_from_db()
        assert (rule.threshold_usd, rule.is_enabled) == (Decimal("0.5"), False)

    def test_deleting_asks_first(self, cast):
        rule = make_rule(cast)
        client = signed_in(cast.admin)
        asked = page(client.get(address(cast, f"{rule.pk}/delete/")))
        assert "Alerts that the rule has made stay in the inbox." in asked.text
        assert Rule.objects.exists()
        client.post(address(cast, f"{rule.pk}/delete/"))
        assert not Rule.objects.exists()

    def test_rules_of_other_workspaces_are_not_there(self, cast):
        other = make_workspace("pro")
        rule = Rule.objects.create(
            workspace=other.workspace, kind="unit_cost", dimension="model", threshold_usd=Decimal(1)
        )
        client = signed_in(cast.admin)
        for rest in (f"{rule.pk}/", f"{rule.pk}/delete/"):
            assert client.get(address(cast, rest)).status_code == 404
            assert client.post(address(cast, rest), UNIT_COST).status_code == 404
        assert Rule.objects.filter(pk=rule.pk).exists()

    @pytest.mark.parametrize("rest", ["new/", "{}/", "{}/delete/"])
    def test_members_cannot(self, cast, rest):
        rule = make_rule(cast)
        client = signed_in(cast.member)
        assert client.get(address(cast, rest.format(rule.pk))).status_code == 403
        assert client.post(address(cast, rest.format(rule.pk)), UNIT_COST).status_code == 403
        assert Rule.objects.count() == 1
