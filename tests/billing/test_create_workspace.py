import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from billing.services import ensure_plans
from ingest.models import WorkspacePolicy
from tests.factories import PASSWORD, UserFactory
from workspaces.keys import authenticate_api_key
from workspaces.models import User, Workspace

pytestmark = pytest.mark.django_db

READY_KEYS = ["url", "email", "password", "workspaceId", "workspaceSlug", "apiKey", "bearerToken"]


@pytest.fixture(autouse=True)
def _plans(monkeypatch):
    monkeypatch.delenv("OPSMETER_URL", raising=False)
    ensure_plans()


def run(*arguments, plan="pro", email="owner@example.com"):
    out = StringIO()
    call_command("create_workspace", "--name", "Acme", "--plan", plan, "--owner-email", email, *arguments, stdout=out)
    return out.getvalue()


def test_json_has_the_keys_of_the_ready_file_and_they_work(monkeypatch):
    monkeypatch.setenv("OPSMETER_URL", "http://127.0.0.1:8000")
    ready = json.loads(run("--json", "--password", PASSWORD, "--timezone", "Asia/Kathmandu"))
    assert list(ready) == READY_KEYS
    workspace = Workspace.objects.get(pk=ready["workspaceId"])
    assert (ready["url"], ready["email"], ready["password"]) == ("http://127.0.0.1:8000", "owner@example.com", PASSWORD)
    assert (ready["workspaceSlug"], str(workspace.timezone)) == (workspace.slug, "Asia/Kathmandu")
    assert authenticate_api_key(ready["apiKey"]).workspace_id == workspace.pk
    assert re.fullmatch(r"om_pat_\w{8}_\w{32}", ready["bearerToken"])


def test_without_an_address_in_the_environment_the_url_is_null():
    assert json.loads(run("--json"))["url"] is None


def test_a_new_owners_password_is_generated_if_none_is_given():
    ready = json.loads(run("--json"))
    assert User.objects.get().check_password(ready["password"])


def test_an_owner_who_existed_keeps_their_password_and_it_is_null():
    owner = UserFactory(email="owner@example.com")
    assert json.loads(run("--json", "--password", "something-else-1"))["password"] is None
    owner.refresh_from_db()
    assert owner.check_password(PASSWORD)


def test_own_numbers_reach_ingest():
    run("--monthly-requests", "0", "--requests-per-minute", "9")
    policy = WorkspacePolicy.objects.get()
    assert policy.requests_per_minute == 9
    assert policy.workspace.limits.get().amount == 0


def test_for_people_it_prints_text_with_everything_once():
    text = run()
    assert "acme" in text
    assert len(re.findall(r"om_live_\w{8}_\w{32}", text)) == 1
    assert len(re.findall(r"om_pat_\w{8}_\w{32}", text)) == 1
    assert "shown only now" in text


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"plan": "platinum"}, "--plan"),
        ({"email": "nobody"}, "--owner-email"),
        (["--timezone", "Mars/Olympus"], "--timezone"),
        (["--password", "short"], "--password"),
        (["--monthly-requests", "-1"], "--monthly-requests"),
        (["--requests-per-minute", "0"], "--requests-per-minute"),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_stored(arguments, option):
    with pytest.raises(CommandError, match=f"^{option}: "):
        run(**arguments) if isinstance(arguments, dict) else run(*arguments)
    assert not Workspace.objects.exists()
    assert not User.objects.exists()


def test_on_the_command_line_an_error_goes_to_stderr_with_exit_code_1():
    wish = ["--name", "Acme", "--plan", "pro", "--owner-email", "owner@example.com", "--monthly-requests", "-1"]
    manage = Path(__file__).parents[2] / "manage.py"
    done = subprocess.run(
        [sys.executable, str(manage), "create_workspace", *wish, "--json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "--monthly-requests: Between 0 and" in done.stderr
    assert "Traceback" not in done.stderr
