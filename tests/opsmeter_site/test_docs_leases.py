"""The examples about budgets, checks and leases are run against the product, also without it."""

import json
import re
import subprocess
from decimal import Decimal

import pytest

from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.examples import WISH
from budgets.scoped.services import create_budget
from ingest.gateway.openapi_asks import CHECKED_EXAMPLE, LEASED_EXAMPLE
from ingest.models import Lease
from tests.docs import Visitor
from tests.opsmeter_site.test_docs_examples import PROGRAMS, answered, code_of, run, shown, stored, with_token
from tests.servers import ROOT, free_port

ANSWERS = {"check_answer": CHECKED_EXAMPLE, "lease_answer": LEASED_EXAMPLE}


def denied_to_acme(person: Visitor) -> None:
    """Nothing is left for the tenant of the examples, whether or not their model has a price."""
    draft = BudgetDraft(
        "tenant_id", Decimal("0.000000001"), scope_value="acme", enforcement="hard", unpriced="block", name="Acme"
    )
    create_budget(person.workspace, draft, acting_user=None)


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_wrapper_leases_calls_and_settles(person_of, language):
    person = person_of()
    leases = Lease.objects.filter(workspace=person.workspace, outcome="settled")
    printed = run(language, code_of(person, f"lease-{language}"), lambda _printed: leases.exists())
    assert printed == "Hello\n"
    assert {lease.external_request_id for lease in leases} <= stored(person)


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_wrapper_makes_no_call_that_a_budget_denies(person_of, language):
    person = person_of()
    denied_to_acme(person)
    printed = run(language, code_of(person, f"lease-{language}"), lambda printed: "Hello" not in printed)
    assert printed.startswith('Not called: The budget "Acme" (daily, tenantId acme)')
    assert not Lease.objects.filter(workspace=person.workspace, closed_at=None).exists()


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_wrapper_releases_what_a_failed_call_held(person_of, language):
    person = person_of()
    failing = {
        "python": ('return "Hello", {', 'raise SystemError("gone") if True else {'),
        "node": ("async () => ({", "async () => { throw new Error('gone'); }; ({"),
    }
    old, new = failing[language]
    code = code_of(person, f"lease-{language}")
    assert old in code
    done = subprocess.run([*PROGRAMS[language], code.replace(old, new)], capture_output=True, text=True, timeout=60)
    assert "gone" in done.stderr
    assert not Lease.objects.filter(workspace=person.workspace, closed_at=None).exists()
    assert not stored(person)


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_wrapper_goes_on_without_opsmeter(person_of, language):
    person = person_of()
    nobody = code_of(person, f"lease-{language}").replace(person.address, f"http://127.0.0.1:{free_port()}")
    assert run(language, nobody) == "Hello\n"


def test_a_budget_is_made_and_a_call_checked_as_shown(person_of, reader):
    person = person_of()
    (made,) = answered(person, "/docs/limits/", "budget_new", **with_token(person))
    assert made["name"] == "Tenant acme, daily"
    (checked,) = answered(person, "/docs/leases/", "check")
    documented = shown(reader, "check_answer")
    assert list(checked) == list(documented)
    assert list(checked["budget"]) == list(documented["budget"])
    assert (checked["allowed"], checked["budget"]["id"]) == (True, made["id"])


def test_the_answers_to_questions_are_those_of_the_api_description(reader):
    assert {name: shown(reader, name) for name in ANSWERS} == ANSWERS


def test_the_budget_of_the_reference_is_that_of_the_api_description():
    text = (ROOT / "docs/budgets.md").read_text()
    (block,) = re.findall(r"<!-- test: budget -->\n```json\n(.*?)```", text, re.DOTALL)
    assert json.loads(block) == WISH
