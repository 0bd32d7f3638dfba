"""`./verify-local.sh`, and the table in docs/budgets.md that it holds the product against."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import time_machine

from budgets.selectors import budget_values
from budgets.services import update_budget_settings
from ingest.models import Meter
from opsmeter_site.embedded import budget_table, verify
from tests.conftest import MODEL, PROVIDER
from tests.factories import make_workspace
from tests.servers import ROOT, Server, free_port, wait_until

PATIENCE_SECONDS = 120  # for failures alone
SETTINGS = {
    "daily_limit_usd": Decimal("12.345678901234"),
    "monthly_limit_usd": Decimal("0.000000000001"),
    "warning_threshold_ratio": Decimal("0.5"),
    "enforcement": "hard",
    "observe_mode": True,
    "counted_data_modes": ("real", "test"),
}


@dataclass
class Place:
    """A workspace with budgets of its own, and how the script is run against it."""

    opened: Any
    command: list[str]
    environment: dict[str, str]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The script, running."""
        return subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, output, errors

    def budgets(self) -> Any:
        return budget_values(self.opened.workspace.id)


def knows_the_price(server: Server) -> bool:
    """Whether every process of the server has the price book with the tests' one model: they look every few seconds."""
    for _ in range(16):
        client = server.connect()
        client.request("GET", f"/v1/public/pricing-models?provider={PROVIDER}&model={MODEL}")
        count = json.loads(client.getresponse().read())["count"]
        client.close()
        if not count:
            return False
    return True


@pytest.fixture
def place_of(committed, server, tmp_path) -> Callable[..., Place]:
    wait_until(lambda: knows_the_price(server), PATIENCE_SECONDS)

    def make(**wanted: Any) -> Place:
        opened = make_workspace("pro", **wanted)
        update_budget_settings(opened.workspace, acting_user=opened.owner, **SETTINGS)
        ready = {
            "url": f"http://127.0.0.1:{server.port}",
            "apiKey": opened.api_key_plain,
            "bearerToken": opened.access_token_plain,
        }
        ready_file = tmp_path / f"{opened.workspace.slug}.json"
        ready_file.write_text(json.dumps(ready))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPSMETER_")}
        return Place(opened, [str(ROOT / "verify-local.sh"), "--ready-file", str(ready_file)], environment)

    return make


@pytest.fixture
def place(place_of) -> Place:
    return place_of()


def docs_saying(tmp_path: Path, old: str, new: str) -> str:
    text = budget_table.DOCUMENT.read_text()
    assert old in text
    path = tmp_path / "budgets.md"
    path.write_text(text.replace(old, new))
    return str(path)


def test_flags_and_messages_are_as_documented_and_the_settings_come_back(place):
    before = place.budgets()
    code, output, errors = place.run()
    assert (code, errors) == (0, "")
    assert output.count("as documented") == 5
    assert 'a client shows "Budget warning threshold reached"; severity warning' in output
    assert 'a client shows "Budget warning threshold reached" and "Budget reached"; severity critical' in output
    assert output.endswith("OK: flags, messages and soft stop are as docs/budgets.md says.\n")
    assert place.opened.api_key_plain not in output
    assert place.budgets() == before
    # Demo rows count no longer, so the meters are those of the real rows again: there are none.
    assert not Meter.objects.filter(workspace=place.opened.workspace, measure="usd", value__gt=0).exists()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "| at or above the warning threshold | 200 | true | null | true |",
            "| at or above the warning threshold | 200 | true | null | false |",
            "at or above the warning threshold: budgetWarning is true, documented is false",
        ),
        (
            "| critical | `Budget warning threshold reached`, then `Budget reached` |",
            "| critical | `Budget used up` |",
            'above the limit, soft stop: a client shows "Budget warning threshold reached" and "Budget reached", '
            'documented is "Budget used up"',
        ),
        (
            "| above the limit, soft stop | 200 | true |",
            "| above the limit, soft stop | 402 | false |",
            "above the limit, soft stop: HTTP is 200, documented is 402",
        ),
        ("| above the limit, soft stop |", "| over |", 'has no row "above the limit, soft stop"'),
    ],
)
def test_a_difference_to_the_documentation_fails(place, tmp_path, old, new, line):
    before = place.budgets()
    code, _output, errors = place.run("--docs", docs_saying(tmp_path, old, new))
    assert code == 1
    assert line in errors
    assert all(text.startswith("verify-local: FAILED: ") for text in errors.splitlines())
    assert place.budgets() == before


def test_ctrl_c_puts_the_settings_back(place_of):
    # The fourth request of a minute has to wait: that is when the signal comes.
    place = place_of(requests_per_minute=3)
    before = place.budgets()
    with place.start() as process:
        line = next(line for line in process.stdout if "rate_limited" in line)
        assert re.fullmatch(r"POST /v1/ingest/demo: 429 rate_limited, trying again in \d+ s\n", line)
        assert place.budgets() != before
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert "The former budget settings are back." in output
    assert "Stopping" in errors
    assert place.budgets() == before


def test_what_is_in_the_way_is_said_in_one_line(place, place_of, tmp_path):
    before = place.budgets()
    other = place_of(monthly_requests=0)
    cases = {
        ("--url", f"http://127.0.0.1:{free_port()}"): "no answer from http://127.0.0.1:",
        ("--url", "localhost:8000"): "not an address such as http://127.0.0.1:8000: localhost:8000",
        ("--api-key", other.opened.api_key_plain): "the API key and the access token belong to two workspaces",
        ("--token", "om_pat_wrong"): "GET /v1/settings/workspace-status: 401 invalid_token: ",
        ("--ready-file", str(tmp_path / "nowhere")): "there is no ",
    }
    for arguments, text in cases.items():
        code, _output, errors = place.run(*arguments)
        assert (code, len(errors.splitlines())) == (1, 1)
        assert errors.startswith(f"verify-local: FAILED: {text}")
    code, _output, errors = other.run()
    assert code == 1
    assert "the workspace's plan limit is reached" in errors
    assert place.budgets() == before


# --- In this process, where time and traffic can be arranged ----------------------------------------------------------


class Door:
    """A `verify.Server` that speaks to the application in this process; `before` is called before each request."""

    url = "in this process"

    def __init__(self, client: Any, before: Callable[[int, str], None]) -> None:
        self._client = client
        self._before = before
        self._requests = 0

    def send(self, method: str, path: str, body: bytes = b"", *, by_token: bool = False) -> verify.Reply:
        self._requests += 1
        self._before(self._requests, path)
        opened = self._client.opened
        credential = {"X-API-Key": opened.api_key_plain}
        if by_token:
            credential = {"Authorization": f"Bearer {opened.access_token_plain}"}
        reply = self._client.app.request(method, path, body, credential)
        return verify.Reply(reply.status, reply.body, json.loads(reply.body, parse_float=Decimal), None)


def check(client: Any, before: Callable[[int, str], None] = lambda _number, _path: None) -> list[str]:
    rows = budget_table.documented(budget_table.DOCUMENT, [budget_table.SOFT_STOP])
    return verify.Check(Door(client, before), rows, verify.Stop()).run()


@pytest.mark.parametrize("number", range(9, 21))
def test_midnight_in_the_middle_does_no_harm(meter, capsys, number):
    midnight = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    with time_machine.travel(midnight - timedelta(milliseconds=1), tick=False) as traveller:
        problems = check(meter, lambda request, _path: traveller.move_to(midnight) if request == number else None)
    assert problems == []
    # Before the first event and after the last it disturbs nothing.
    if 12 <= number <= 18:
        assert "Midnight (UTC) passed" in capsys.readouterr().out


def test_other_traffic_does_no_harm(meter, capsys):
    update_budget_settings(meter.opened.workspace, acting_user=meter.opened.owner, daily_limit_usd=Decimal(1))
    before = budget_values(meter.workspace_id)
    sent = []

    def interfere(_number: int, path: str) -> None:
        if path == "/v1/ingest/demo" and len(sent) < 3:
            sent.append(meter.send(outputTokens=200_000).status)

    assert check(meter, interfere) == []
    assert sent == [200] * 3
    assert "Other traffic moved the meter" in capsys.readouterr().out
    assert budget_values(meter.workspace_id) == before


def test_traffic_without_end_is_said_and_the_settings_come_back(meter):
    before = budget_values(meter.workspace_id)
    with pytest.raises(budget_table.VerifyError, match="never stood still"):
        check(meter, lambda _number, _path: meter.send(outputTokens=200_000))
    assert budget_values(meter.workspace_id) == before


# --- The table of docs/budgets.md, row by row -------------------------------------------------------------------------


def answer_in(client_of: Callable[..., Any], state: str) -> tuple[Any, dict[str, Any]]:
    """An ingest answer of a workspace in that state, and its workspace status."""
    client = client_of(monthly_requests=1 if state == budget_table.PLAN_LIMIT else 1_000)
    # An event costs 0.000045 USD.
    spent, limit = {
        budget_table.BELOW: (1, "0.001"),
        budget_table.WARNING: (2, "0.0001"),
        budget_table.PLAN_LIMIT: (2, None),
    }.get(state, (3, "0.00005"))
    update_budget_settings(
        client.opened.workspace,
        acting_user=client.opened.owner,
        daily_limit_usd=limit and Decimal(limit),
        enforcement="soft" if state == budget_table.SOFT_STOP else "hard",
        observe_mode=state == budget_table.OBSERVED,
    )
    replies = [client.send() for _ in range(spent)]
    token = {"Authorization": f"Bearer {client.opened.access_token_plain}"}
    return replies[-1], client.app.request("GET", "/v1/settings/workspace-status", headers=token).json


STATES = (
    budget_table.BELOW,
    budget_table.WARNING,
    budget_table.SOFT_STOP,
    budget_table.HARD_STOP,
    budget_table.OBSERVED,
    budget_table.PLAN_LIMIT,
)


@pytest.mark.parametrize("state", STATES)
def test_every_row_of_the_table_is_true(client_of, state):
    rows = budget_table.documented(budget_table.DOCUMENT, STATES)
    assert list(rows) == list(STATES)
    reply, status = answer_in(client_of, state)
    said = {"HTTP": reply.status, "severity": status["severity"], **reply.json}
    assert rows[state].fields.keys() <= said.keys()
    assert list(budget_table.differences(rows[state], said, budget_table.messages(reply.json))) == []
    assert status["telemetryPaused"] == said["telemetryPaused"]
    assert status["isBudgetWarning"] == said["budgetWarning"]
    assert status["isBudgetExceeded"] == said["budgetExceeded"]


def test_a_field_that_says_almost_the_same_is_a_difference():
    row = budget_table.Row({"accepted": True, "reason": None}, [])
    assert list(budget_table.differences(row, {"accepted": 1, "reason": ""}, [])) == [
        "accepted is 1, documented is true",
        'reason is "", documented is null',
    ]


CLIENT = re.compile(r"<!-- test: client -->\n```js\n(.*?)```", re.DOTALL)
HARNESS = """
const answers = JSON.parse(require('fs').readFileSync(0));
const shown = [];
const showToast = (text) => shown.at(-1).push(text);
const showUpgradeBanner = showToast;
const apiKey = 'om_live_x', metadata = {};
let answer;
const fetch = async () => ({json: async () => answer});
(async () => {
  for (answer of answers) {
    shown.push([]);
    await (async () => {
%s
    })();
  }
  console.log(JSON.stringify(shown));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_documented_client_code_shows_what_the_table_says(client_of):
    found = CLIENT.search(budget_table.DOCUMENT.read_text())
    assert found is not None
    answers = [answer_in(client_of, state)[0].json for state in STATES]
    done = subprocess.run(
        ["node", "-e", HARNESS % found.group(1)], input=json.dumps(answers), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows = budget_table.documented(budget_table.DOCUMENT, STATES)
    assert json.loads(done.stdout) == [list(rows[state].shows) for state in STATES]
    assert json.loads(done.stdout) == [budget_table.messages(answer) for answer in answers]


def test_the_script_takes_no_option_for_granted(tmp_path):
    script = [str(ROOT / "verify-local.sh")]
    environment = {"PATH": os.environ["PATH"], "OPSMETER_DATA": str(tmp_path)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert "no API key and access token" in done.stderr
    done = subprocess.run([*script, "--help"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "--ready-file" in done.stdout
