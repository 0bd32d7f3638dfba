"""The README and the documents say what is true: their examples are run, their lists compared with the code."""

import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import prometheus_client
import pytest
from django.core.management import call_command, get_commands
from django.db import transaction
from prometheus_client.metrics import MetricWrapperBase

from alerts import metrics as alert_metrics
from billing import metrics as billing_metrics
from ingest import metrics
from ingest.gateway.routes import ROUTES
from ingest.models import Event
from opsmeter_site.embedded import preflight
from opsmeter_site.embedded.__main__ import COMMANDS
from tests.factories import make_workspace
from tests.servers import ROOT, database_url, free_port, wait_until
from workspaces.keys import identify_api_key

README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# For failures alone: two busy cores start and stop nothing quickly.
SERVERS_START_SECONDS = 120
STOP_SECONDS = 60
# A busy test machine may not answer within the examples' short time-out; a repeat of the same id is what clients send.
ATTEMPTS = 5


def blocks(path: Path) -> dict[str, list[str]]:
    """The document's fenced blocks by the name in the comment before each."""
    text = path.read_text()
    found = re.findall(r"<!-- test: ([\w-]+) -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert len(found) == len(re.findall(r"^```\w", text, re.MULTILINE)), f"a block of {path.name} has no test"
    named: dict[str, list[str]] = {}
    for name, block in found:
        named.setdefault(name, []).append(block)
    return named


def block(name: str) -> str:
    (only,) = blocks(README)[name]
    return only


def commands_of(text: str) -> list[list[str]]:
    """The command lines of a shell block, as words."""
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


# --- The examples -----------------------------------------------------------------------------------------------------


@pytest.fixture
def caller_of(committed, server) -> Callable[..., dict[str, str]]:
    """The environment of a program that has a workspace of its own on the running server."""

    def make(**wanted: Any) -> dict[str, str]:
        opened = make_workspace("team", **wanted)
        kept = {"PATH", "HOME", "LANG"}
        environment = {name: value for name, value in os.environ.items() if name in kept}
        environment |= {"OPSMETER_URL": f"http://127.0.0.1:{server.port}", "OPSMETER_API_KEY": opened.api_key_plain}
        return environment

    return make


EXAMPLES = {
    "curl": ("bash", "-c"),
    "python": (sys.executable, "-W", "error", "-c"),
    "python-sdk": (sys.executable, "-W", "error", "-c"),
    "node": ("node", "-e"),
}


def run_example(name: str, environment: dict[str, str], is_done: Callable[[str], bool]) -> str:
    """What the example prints when what it prints is what `is_done` waits for."""
    program, *arguments = EXAMPLES[name]
    if shutil.which({"bash": "curl"}.get(program, program)) is None:
        pytest.skip(f"{name} is not installed")
    printed = ""
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [program, *arguments, block(name)], env=environment, capture_output=True, text=True, timeout=120
        )
        printed = done.stdout + done.stderr
        assert name == "curl" or done.returncode == 0, printed
        if is_done(printed):
            return printed
    raise AssertionError(printed)


def test_the_curl_example_gets_the_answer_that_the_readme_shows(caller_of):
    answer = json.loads(run_example("curl", caller_of(), lambda printed: "accepted" in printed))
    documented = json.loads(block("answer"))
    assert list(answer) == list(documented)
    # The tests' catalogue has no price for the model; the documented cost is checked in the next test.
    assert answer["costUsd"] is None
    assert len(answer.pop("warnings")) == 1
    assert documented.pop("warnings") == []
    assert {**answer, "costUsd": documented["costUsd"], "duplicate": False} == documented


def test_the_documented_cost_is_that_of_the_example():
    found = re.search(r"-d '(.*?)'", block("curl"), re.DOTALL)
    assert found is not None
    event = json.loads(found.group(1))
    assert (event["provider"], event["model"]) == ("openai", "gpt-4o-mini")
    usd = event["inputTokens"] * 0.15 / 1e6 + event["outputTokens"] * 0.6 / 1e6
    assert json.loads(block("answer"))["costUsd"] == pytest.approx(usd)


@pytest.mark.parametrize("name", ["python", "node"])
def test_the_example_stores_its_event(caller_of, name):
    environment = caller_of()
    event_id = f"readme-{name}-1"
    assert event_id in block(name)
    # The tests' catalogue has no price for the model.
    printed = run_example(name, environment, lambda _printed: is_stored(environment, event_id))
    assert printed.strip() in {"None", "null"}


def test_the_sdk_example_stores_its_event(caller_of):
    printed = run_example("python-sdk", caller_of(), lambda printed: "'status': 200" in printed)
    assert "'accepted': True" in printed


def is_stored(environment: dict[str, str], event_id: str) -> bool:
    """Whether a row with that id is in the caller's workspace."""
    identity = identify_api_key(environment["OPSMETER_API_KEY"])
    assert identity is not None
    return Event.objects.filter(workspace_id=identity.workspace_id, external_request_id=event_id).exists()


@pytest.mark.parametrize("name", ["python", "node"])
def test_the_example_handles_429_402_and_no_answer(caller_of, name):
    paused = caller_of(monthly_requests=0)
    run_example(name, paused, lambda printed: "Telemetry paused due to plan/budget policy." in printed)

    throttled = caller_of(requests_per_minute=1)
    pattern = re.compile(r"Telemetry throttled, retry after [1-9]\d?s")
    run_example(name, throttled, lambda printed: pattern.search(printed) is not None)

    nobody = caller_of() | {"OPSMETER_URL": f"http://127.0.0.1:{free_port()}"}
    assert run_example(name, nobody, bool).strip() in {"None", "null"}


def test_the_sdk_example_survives_a_server_that_is_away(caller_of):
    nobody = caller_of() | {"OPSMETER_URL": f"http://127.0.0.1:{free_port()}"}
    assert "'ok': False" in run_example("python-sdk", nobody, bool)


def test_the_dotnet_example_follows_the_rules():
    source = block("dotnet")
    for needed in (
        'baseUrl + "/v1/ingest/llm-request"',
        '"X-API-Key"',
        "Timeout = TimeSpan.FromMilliseconds(600)",
        "HttpStatusCode.TooManyRequests",
        "res.Headers.RetryAfter?.Delta?.TotalSeconds ?? 1",
        "(int)res.StatusCode == 402",
        "// telemetry must not break your production flow",
    ):
        assert needed in source
    assert source.count("{") == source.count("}")
    assert source.count("(") == source.count(")")


def test_the_environment_of_the_examples_is_the_one_that_they_read():
    exported = {words[1].partition("=")[0] for words in commands_of(block("environment"))}
    assert exported == {"OPSMETER_URL", "OPSMETER_API_KEY"}
    for name in ("curl", "python", "python-sdk", "node"):
        assert all(variable in block(name) for variable in exported)


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_the_launcher_has_the_commands_that_the_documents_name():
    named = set(re.findall(r"\./opsmeter ([a-z]+)", "".join(path.read_text() for path in DOCUMENTS)))
    assert {words[1] for words in commands_of(block("launcher"))} <= named
    assert named <= set(COMMANDS)
    assert set(COMMANDS) == set(preflight.COMMANDS)
    assert os.access(ROOT / "opsmeter", os.X_OK)


def test_the_endpoint_of_the_opentelemetry_example_is_served():
    (text,) = blocks(ROOT / "docs/api.md")["otlp"]
    settings = dict(words[0].split("=", 1) for words in commands_of(text))
    assert {name.rpartition("_")[2] for name in settings} == {"ENDPOINT", "HEADERS", "PROTOCOL"}
    assert urlsplit(settings["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]).path in ROUTES
    assert settings["OTEL_EXPORTER_OTLP_TRACES_HEADERS"].startswith("X-API-Key=om_live_")


def test_every_path_of_the_gateway_is_documented():
    assert all(f"`POST {path}`" in (ROOT / "docs/api.md").read_text() for path in ROUTES)


def test_the_documents_name_management_commands_that_exist():
    text = "".join(path.read_text() for path in DOCUMENTS)
    named = set(re.findall(r"(?:manage\.py|opsmeter manage) ([a-z_]+)", text))
    assert {"migrate", "import_prices", "create_workspace", "audit_ledger", "rebuild_rollups"} <= named
    assert named <= set(get_commands())


def test_every_block_of_the_documents_is_accounted_for():
    known = {
        *EXAMPLES, "launcher", "verify", "environment", "dotnet", "answer", "release", "programs", "accounts",
        "budget", "client", "operate", "otlp",
    }  # fmt: skip
    for path in DOCUMENTS:
        assert blocks(path).keys() <= known
    for path in DOCUMENTS:
        for text in blocks(path).get("verify", []):
            assert commands_of(text) == [["./verify-local.sh"]]  # test_verify_local.py runs it


@pytest.fixture
def production(committed, settings, tmp_path) -> dict[str, str]:
    """The environment of .env.example, with what is specific to this machine in its place."""
    example = subprocess.run(
        ["bash", "-c", "set -a; . ./.env.example; env -0"], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    environment = dict(line.partition("=")[::2] for line in example.stdout.split("\0") if line)
    return environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "REDIS_KEY_PREFIX": f"{settings.REDIS_KEY_PREFIX}:readme",
        "OPSMETER_DATA": str(tmp_path),
        "DJANGO_SUPERUSER_PASSWORD": "correct-horse-battery",
    }


def run_line(words: list[str], environment: dict[str, str], *more: str) -> str:
    done = subprocess.run(
        [*words, *more],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


# What a test adds to a command: an import would change the prices of every later test, and nobody can be asked.
MORE = {"import_prices": ["--dry-run"], "createsuperuser": ["--no-input"]}


def test_the_commands_that_make_accounts_work(production):
    for words in commands_of(block("accounts")):
        printed = run_line(words, production, *MORE.get(words[2], []))
    assert "om_live_" in printed
    assert production["OPSMETER_URL"] in printed


def test_the_example_of_a_secret_is_refused(production):
    words = commands_of(block("release"))[-1]
    assert words[2:4] == ["check", "--deploy"]
    example = re.search(r"^SECRET_KEY=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert example is not None
    done = subprocess.run(words, cwd=ROOT, env=production | {"SECRET_KEY": example.group(1)}, capture_output=True)
    assert done.returncode == 1
    assert b"opsmeter.E003" in done.stderr


def test_the_operators_commands_work(committed):
    slug = make_workspace("pro").workspace.slug
    lines = [words for text in blocks(ROOT / "docs/operating.md")["operate"] for words in commands_of(text)]
    assert all(words[:2] == ["python", "manage.py"] for words in lines)
    for command, *arguments in (words[2:] for words in lines):
        if command == "import_prices":
            continue  # the test of a release runs it
        if command == "rebuild_rollups":
            arguments.append("--yes")
        # Of all workspaces of a test run, some have been made to drift on purpose: never all of them.
        if not arguments and command != "check_billing":
            arguments = ["--workspace", "acme"]
        named = [slug if word == "acme" else word for word in arguments]
        # What is mapped would be on offer in every later test.
        with transaction.atomic() if command == "map_variant" else nullcontext():
            call_command(command, *named, stdout=StringIO())
            if command == "map_variant":
                transaction.set_rollback(True)


@contextmanager
def running(lines: list[list[str]], environment: dict[str, str], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The programs, in sessions of their own, stopped with SIGTERM at the end: beat first, as `./opsmeter up` does.

    The others are told together.
    """
    started = []
    try:
        for words in lines:
            with (log / words[2]).open("ab") as output:
                started.append(
                    subprocess.Popen(
                        [part.replace("$OPSMETER_DATA", environment["OPSMETER_DATA"]) for part in words],
                        cwd=ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
        yield started
    finally:
        for together in (started[-1:], started[:-1]):
            for process in together:
                process.send_signal(signal.SIGTERM)
            for process in together:
                wait_or_kill(process)


def wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


WORKERS = 3


def test_a_release_and_the_programs_of_production_work(production, tmp_path):
    for words in commands_of(block("release")):
        run_line(words, production, *MORE.get(words[2], []))
    lines = commands_of(block("programs"))
    assert [words[2] for words in lines] == ["granian", *["celery"] * 4]
    port = str(free_port())
    lines[0] = [port if word == "8000" else word for word in lines[0]]
    with running(lines, production, tmp_path) as started:
        wait_until(lambda: is_ready(port), SERVERS_START_SECONDS)
        wait_until(lambda: (tmp_path / "celery").read_bytes().count(b"ready.") == WORKERS, SERVERS_START_SECONDS)
        wait_until(lambda: list(tmp_path.glob("celerybeat-schedule*")), SERVERS_START_SECONDS)
        assert [process.poll() for process in started] == [None] * len(lines)
        # Behind the proxy: plain HTTP is sent to HTTPS, what the proxy says came by TLS is not, and /v1 never is.
        assert status_of(port, "/accounts/login/") == 301
        assert status_of(port, "/accounts/login/", "X-Forwarded-Proto: https") == 200
        assert status_of(port, "/v1/public/pricing-models") == 200
        assert status_of(port, "/internal/metrics") == 404
        assert status_of(port, "/internal/metrics", f"Authorization: Bearer {production['METRICS_TOKEN']}") == 200
        assert status_of(port, "/healthz", "Host: elsewhere.example") == 400
    *programs, beat = started
    assert [process.returncode for process in programs] == [0] * len(programs)
    # Celery's beat closes its file at once, also while it sends a message, and then ends with 1. Nothing is lost by it.
    assert beat.returncode in {0, 1}


def status_of(port: str, path: str, *headers: str) -> int:
    """The status of a GET; 0 while nobody answers."""
    sent = {"Host": "opsmeter.example"} | dict(header.split(": ", 1) for header in headers)
    client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    try:
        client.request("GET", path, headers=sent)
        return client.getresponse().status
    except OSError:
        return 0
    finally:
        client.close()


def is_ready(port: str) -> bool:
    time.sleep(0.1)
    return status_of(port, "/readyz") == 200


# --- Lists ------------------------------------------------------------------------------------------------------------


def variables_of_the_settings() -> set[str]:
    source = (ROOT / "opsmeter_site" / "settings.py").read_text()
    return set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", source))


def test_every_setting_is_in_the_example_and_in_the_readme():
    read = variables_of_the_settings()
    assert {"SECRET_KEY", "DATABASE_URL", "METRICS_TOKEN", "OPSMETER_DATA", "EMAIL_URL"} <= read
    example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", README.read_text(), re.MULTILINE)
    table = set(re.findall(r"[A-Z_]+", " ".join(rows)))
    assert example == table
    assert read <= table


def test_no_variable_is_made_up():
    """What the table names and the settings do not read is read somewhere else."""
    elsewhere = {"PROMETHEUS_MULTIPROC_DIR", "OPSMETER_API_KEY", "OPSMETER_TOKEN"}
    example = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example - variables_of_the_settings() == elsewhere
    sources = [path for app in ("opsmeter_site", "billing") for path in (ROOT / app).rglob("*.py")]
    text = "".join(path.read_text() for path in sources)
    assert all(f'"{name}"' in text for name in elsewhere)


def test_every_metric_is_documented():
    ours = [*vars(metrics).values(), *vars(alert_metrics).values(), *vars(billing_metrics).values()]
    defined = {one._name: one for one in ours if isinstance(one, MetricWrapperBase)}
    rows = re.findall(
        r"^\| `(opsmeter_\w+)(?:\{([^}]*)\})?` \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE
    )
    documented = {name: labels.split(", ") if labels else [] for name, labels in rows}
    assert documented == {
        name + ("_total" if isinstance(one, prometheus_client.Counter) else ""): list(one._labelnames)
        for name, one in defined.items()
    }


def anchors_of(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            name, _, anchor = target.partition("#")
            assert "://" not in name, f"{path.name}: {target} leads outside"
            there = (path.parent / name).resolve() if name else path
            assert there.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in anchors_of(there), f"{path.name}: {target}"


def test_every_decision_is_listed():
    listed = re.findall(r"\]\((\d\d-[\w-]+\.md)\)", (ROOT / "docs/deciding/README.md").read_text())
    assert listed == sorted(path.name for path in (ROOT / "docs/deciding").glob("[0-9]*.md"))


def test_every_file_that_the_documents_name_exists():
    folders = "opsmeter_site|workspaces|ingest|budgets|billing|tests|docs"
    for path in DOCUMENTS:
        for name in re.findall(rf"`((?:{folders})/[\w./]*)`", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name}: {name}"
