"""The docs' toasts and banners, run in Node on answers of the product."""

import json
import shutil
import subprocess
from functools import partial
from typing import Any

import pytest

from tests.docs import Visitor, new_person
from tests.test_verify_local import STATES, answer_in

HARNESS = """
const answers = JSON.parse(require('fs').readFileSync(0));
const shown = [];
const showToast = (...said) => shown.at(-1).push(said);
const showUpgradeBanner = showToast;
const apiKey = 'om_live_x', metadata = {};
let answer;
const fetch = async () => ({json: async () => answer});
(async () => {
  for (answer of answers) {
    shown.push([]);
    %s
  }
  console.log(JSON.stringify(shown));
})();
"""


def node(source: str, given: Any) -> Any:
    """What the program prints as JSON, with `given` on its standard input."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    done = subprocess.run(["node", "-e", source], input=json.dumps(given), capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def reader(committed) -> Visitor:
    return new_person()


def test_the_client_code_shows_what_the_page_says(reader, client_of):
    answers = [answer_in(client_of, state)[0].json for state in STATES]
    code = reader.code("/docs/messages/", "client-javascript")
    said = node(HARNESS % f"await (async () => {{ {code} }})();", answers)
    rows = reader.node("/docs/messages/").one("table", id="states").all("tr")[1:]
    assert [row.one("th").text for row in rows] == list(STATES)
    assert [[one[0] for one in each] for each in said] == [[text.text for text in row.all("q")] for row in rows]
    assert ["Budget warning threshold reached", "warning", "Consider upgrading to Pro."] in said[1]
    assert ["Budget reached", "warning", "Upgrade to Pro to lift the limit."] in said[2]
    assert said[-1] == [["Telemetry paused. Plan limit reached."]]


@pytest.mark.parametrize(("plan", "name"), [("free", "Free"), ("pro", "Pro"), ("enterprise", "Enterprise")])
def test_the_next_step_is_that_of_the_plan(reader, client_of, plan, name):
    table = {row[0]: row[1:] for row in reader.node("/docs/messages/").one("table", id="steps").rows()}
    code = reader.code("/docs/messages/", "messages-javascript")
    answers = [answer_in(partial(client_of, plan), state)[0].json for state in STATES[1:3]]
    paused = client_of(plan, monthly_requests=1)
    # The last event that the plan includes says so already, and the next one is refused without naming the plan.
    answers += [paused.send().json, paused.send().json]
    assert [answer.get("planTier") for answer in answers] == [name, name, name, None]
    said = node(HARNESS.replace("const answers", f"{code}\nconst answers") % "showLimits(answer);", answers)
    warning, reached, banner = table[name]
    assert said == [
        [["Budget warning threshold reached", "warning", warning]],
        [["Budget warning threshold reached", "warning", warning], ["Budget reached", "warning", reached]],
        [["Telemetry paused. Plan limit reached.", banner]],
        [["Telemetry paused. Plan limit reached.", banner]],
    ]


# As much of a browser's document as the toast needs.
DOCUMENT = """
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.style = {}; this.attributes = {}; this.listeners = {}; }
  setAttribute(name, value) { this.attributes[name] = value; }
  append(...added) { this.children.push(...added); }
  prepend(one) { this.children.unshift(one); one.remove = () => this.children.splice(this.children.indexOf(one), 1); }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  find(is) { return is(this) ? this : this.children.map((child) => child.find?.(is)).find(Boolean); }
  get text() { return (this.textContent ?? '') + this.children.map((child) => child.text ?? child).join(''); }
}
const document = {
  body: new Element('body'),
  createElement: (tag) => new Element(tag),
  getElementById: (id) => document.body.find((element) => element.id === id)
};
"""
SHOWN = """
showToast('Budget reached', 'warning', 'Upgrade to Pro to lift the limit.');
showToast('Budget warning threshold reached', 'warning', 'Consider upgrading to Pro.');
showToast('Budget reached', 'warning', 'Upgrade to Pro to lift the limit.');
showUpgradeBanner('Telemetry paused. Plan limit reached.');
const toasts = () => document.getElementById('opsmeter-toasts').children;
const texts = () => [...document.body.children.filter((child) => !child.id), ...toasts()].map((box) => box.text);
const before = texts();
const banner = document.body.children[0];
const roles = [banner, toasts()[0]].map((box) => box.attributes.role);
banner.find((element) => element.tag === 'button').listeners.click();
console.log(JSON.stringify({before, roles, after: texts()}));
"""


def test_the_toast_and_the_banner_are_shown_once_and_go_away(reader):
    said = node(DOCUMENT + reader.code("/docs/messages/", "toast-javascript") + SHOWN, None)
    toasts = [
        "Budget warning threshold reached Consider upgrading to Pro. Dismiss",
        "Budget reached Upgrade to Pro to lift the limit. Dismiss",
    ]
    assert said["before"] == ["Telemetry paused. Plan limit reached. LLM calls keep running. Dismiss", *toasts]
    assert said["after"] == toasts
    assert said["roles"] == ["status", "status"]
