import json

import pytest

from tests.client import ApiClient, assert_refused
from tests.factories import make_cast, make_workspace, token_for

pytestmark = pytest.mark.django_db

PATH = "/v1/settings/budgets"
DEFAULTS = {
    "dailyLimitUsd": None,
    "monthlyLimitUsd": None,
    "warningThresholdRatio": 0.8,
    "enforcement": "soft",
    "observeMode": False,
    "countedDataModes": ["real"],
}
FULL = {
    "dailyLimitUsd": 50,
    "monthlyLimitUsd": 500.5,
    "warningThresholdRatio": 0.75,
    "enforcement": "hard",
    "observeMode": True,
    "countedDataModes": ["demo", "real"],
}


@pytest.fixture
def people():
    return make_cast()


@pytest.fixture
def owner():
    return ApiClient(token=make_workspace().access_token_plain)


def body_of(response):
    assert response.status_code == 200, response.content
    return json.loads(response.content)


def test_it_answers_defaults_before_anybody_set_anything(owner):
    assert body_of(owner.get(PATH)) == DEFAULTS


def test_put_then_get(owner):
    assert body_of(owner.put(PATH, FULL)) == FULL
    assert body_of(owner.get(PATH)) == FULL


def test_put_replaces_what_it_does_not_name(owner):
    owner.put(PATH, FULL)
    assert body_of(owner.put(PATH, {"monthlyLimitUsd": 10})) == {**DEFAULTS, "monthlyLimitUsd": 10}


def test_patch_changes_only_what_it_names(owner):
    owner.put(PATH, FULL)
    assert body_of(owner.patch(PATH, {"enforcement": "soft"})) == {**FULL, "enforcement": "soft"}
    assert body_of(owner.patch(PATH, {"dailyLimitUsd": None})) == {**FULL, "enforcement": "soft", "dailyLimitUsd": None}
    assert body_of(owner.patch(PATH, {})) == {**FULL, "enforcement": "soft", "dailyLimitUsd": None}


@pytest.mark.parametrize("digits", ["41.25", "50", "0.000000000001", "9999999.999999999999", "0.1"])
def test_money_comes_back_with_exactly_its_digits(owner, digits):
    response = owner.send("PUT", PATH, b'{"dailyLimitUsd": %s}' % digits.encode())
    written = response.content.decode().partition('"dailyLimitUsd":')[2].partition(",")[0]
    assert written.strip() in {digits, "1E-12"}


@pytest.mark.parametrize("written", [b"50.0", b"5e1", b"50.000000000000", b"0.5E2"])
def test_a_whole_number_is_written_as_one(owner, written):
    response = owner.send("PUT", PATH, b'{"dailyLimitUsd": ' + written + b"}")
    assert b'"dailyLimitUsd":50,' in response.content


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_owners_and_admins_write(people, role):
    client = ApiClient(token=token_for(getattr(people, role), people.workspace))
    assert client.patch(PATH, {"dailyLimitUsd": 5}).status_code == 200


@pytest.mark.parametrize("role", ["member", "viewer"])
def test_members_and_viewers_read_and_do_not_write(people, role):
    client = ApiClient(token=token_for(getattr(people, role), people.workspace))
    assert client.get(PATH).status_code == 200
    assert_refused(client.patch(PATH, {"dailyLimitUsd": 5}), 403, "not_allowed")
    assert_refused(client.put(PATH, {"dailyLimitUsd": 5}), 403, "not_allowed")


def test_a_read_token_does_not_write(people):
    client = ApiClient(token=token_for(people.owner, people.workspace, "read"))
    assert client.get(PATH).status_code == 200
    assert_refused(client.put(PATH, {"dailyLimitUsd": 5}), 403, "not_allowed")


def test_credentials_are_asked_for(people):
    response = ApiClient().get(PATH)
    assert_refused(response, 401, "missing_token")
    assert response["WWW-Authenticate"] == "Bearer"
    assert_refused(ApiClient(token="om_pat_abcdefgh_" + "x" * 32).get(PATH), 401, "invalid_token")
    assert_refused(ApiClient(api_key=people.opened.api_key_plain).get(PATH), 401, "missing_token")


def test_one_workspace_does_not_see_the_other(owner):
    owner.put(PATH, FULL)
    other = ApiClient(token=make_workspace().access_token_plain)
    assert body_of(other.get(PATH)) == DEFAULTS


BAD_VALUES = [
    ("dailyLimitUsd", "0"),
    ("dailyLimitUsd", "-1"),
    ("dailyLimitUsd", "-0.0"),
    ("dailyLimitUsd", "1e400"),
    ("dailyLimitUsd", "1e-400"),
    ("dailyLimitUsd", "10000000.01"),
    ("dailyLimitUsd", "99999999999999999999"),
    ("dailyLimitUsd", "0.0000000000001"),
    ("dailyLimitUsd", '"50"'),
    ("dailyLimitUsd", '""'),
    ("dailyLimitUsd", "true"),
    ("dailyLimitUsd", "false"),
    ("dailyLimitUsd", "[50]"),
    ("dailyLimitUsd", '{"usd": 50}'),
    ("monthlyLimitUsd", '"Infinity"'),
    ("warningThresholdRatio", "0"),
    ("warningThresholdRatio", "-0.5"),
    ("warningThresholdRatio", "1.01"),
    ("warningThresholdRatio", "80"),
    ("warningThresholdRatio", "0.80001"),
    ("warningThresholdRatio", "null"),
    ("warningThresholdRatio", '"0.8"'),
    ("enforcement", '"firm"'),
    ("enforcement", '"HARD"'),
    ("enforcement", "null"),
    ("enforcement", "1"),
    ("enforcement", '["hard"]'),
    ("observeMode", '"true"'),
    ("observeMode", "1"),
    ("observeMode", "0"),
    ("observeMode", "null"),
    ("countedDataModes", "[]"),
    ("countedDataModes", '["real", "real"]'),
    ("countedDataModes", '"real"'),
    ("countedDataModes", "null"),
    ("countedDataModes", '{"real": true}'),
    ("countedDataModes", '["real", "test", "demo", "real"]'),
]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(("field", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_and_changes_nothing(owner, method, field, value):
    owner.put(PATH, FULL)
    response = owner.send(method, PATH, f'{{"{field}": {value}}}'.encode())
    assert_refused(response, 400, "invalid_payload", field)
    assert body_of(owner.get(PATH)) == FULL


@pytest.mark.parametrize(
    ("value", "field"), [('["real", "staging"]', "countedDataModes[1]"), ("[1]", "countedDataModes[0]")]
)
def test_a_bad_entry_is_named_by_its_place(owner, value, field):
    response = owner.send("PATCH", PATH, f'{{"countedDataModes": {value}}}'.encode())
    assert_refused(response, 400, "invalid_payload", field)


def test_every_bad_field_is_named_at_once(owner):
    response = owner.patch(PATH, {"dailyLimitUsd": True, "enforcement": "firm", "monthlyLimit": 5})
    fields = {error["field"] for error in json.loads(response.content)["errors"]}
    assert fields == {"dailyLimitUsd", "enforcement", "monthlyLimit"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("name", ["dailyLimit", "daily_limit_usd", "DailyLimitUsd", "warning", ""])
def test_an_unknown_field_is_refused_so_that_no_typo_loses_a_limit(owner, method, name):
    owner.put(PATH, FULL)
    body = assert_refused(owner.send(method, PATH, {name: 50}), 400, "invalid_payload", name)
    assert "dailyLimitUsd" in body["errors"][0]["message"]
    assert body_of(owner.get(PATH)) == FULL


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{'dailyLimitUsd': 50}",
        b'{"dailyLimitUsd": NaN}',
        b'{"dailyLimitUsd": Infinity}',
        b'{"dailyLimitUsd": -Infinity}',
        b'{"dailyLimitUsd": 50,}',
        b'{"dailyLimitUsd": 050}',
        b'{"dailyLimitUsd": 0x10}',
        b'{"dailyLimitUsd": ' + b"9" * 5_000 + b"}",
        b'{"dailyLimitUsd": 1e' + b"9" * 50 + b"}",
        b'{"dailyLimitUsd": 0.' + b"1" * 5_000 + b"}",
        b'{"enforcement": "\xff\xfe"}',
        '{"enforcement": "soft"}'.encode("utf-16"),
        b"[" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_what_is_not_json_is_refused(owner, raw):
    assert_refused(owner.send("PUT", PATH, raw), 400, "invalid_json")


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"5", b"null", b"true", b'[{"dailyLimitUsd": 50}]'])
def test_only_an_object_is_a_body(owner, raw):
    assert_refused(owner.send("PUT", PATH, raw), 400, "invalid_payload", "")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"dailyLimitUsd": 50, "dailyLimitUsd": 5000}', "dailyLimitUsd"),
        (b'{"daily\\u004cimitUsd": 50, "dailyLimitUsd": 5000}', "dailyLimitUsd"),
        (b'{"enforcement": "so\\u0000ft"}', "enforcement"),
        (b'{"enforcement": "\\ud800"}', "enforcement"),
        (b'{"daily\\u0000": 1}', "daily"),
    ],
)
def test_ambiguous_and_unstorable_text_is_refused(owner, raw, field):
    assert_refused(owner.send("PUT", PATH, raw), 400, "invalid_payload", field)


def test_many_errors_do_not_make_a_large_answer(owner):
    raw = json.dumps({f"field{number}": 1 for number in range(3_000)}).encode()
    response = owner.send("PUT", PATH, raw)
    assert response.status_code == 400
    assert len(json.loads(response.content)["errors"]) == 50


def test_a_body_over_64_kib_is_too_large(owner):
    raw = b'{"enforcement": "' + b"x" * 65_536 + b'"}'
    assert_refused(owner.send("PUT", PATH, raw), 413, "payload_too_large")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "x",
        ";;",
    ],
)
def test_other_content_types_are_refused(owner, content_type):
    response = owner.send("PUT", PATH, b'{"dailyLimitUsd": 50}', content_type=content_type)
    assert_refused(response, 415, "unsupported_media_type")


def test_a_charset_beside_the_content_type_is_fine(owner):
    response = owner.send("PUT", PATH, b'{"dailyLimitUsd": 50}', content_type="application/json; charset=utf-8")
    assert response.status_code == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "TRACE", "LINK"])
def test_other_methods_are_405_with_allow(owner, method):
    response = owner.send(method, PATH)
    assert_refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, PUT, PATCH"


def test_an_answer_in_another_format_is_refused(owner):
    assert_refused(owner.get(PATH, Accept="text/html"), 406, "not_acceptable")


@pytest.mark.parametrize("accept", ["*/*", "application/*", "application/json", "text/html, */*;q=0.1", ""])
def test_every_usual_accept_header_is_fine(owner, accept):
    assert owner.get(PATH, Accept=accept).status_code == 200


@pytest.mark.parametrize("query", ["?format=xml", "?format=json", "?format=", "?%00=%ff"])
def test_parameters_do_not_matter(owner, query):
    assert owner.get(PATH + query).status_code == 200


def test_head_is_get_without_a_body(owner):
    response = owner.send("HEAD", PATH)
    assert (response.status_code, response.content) == (200, b"")
