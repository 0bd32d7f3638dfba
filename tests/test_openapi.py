"""The OpenAPI document is true: what it says, the product does; what the product answers, it says."""

import json
from io import StringIO

import pytest
import schemathesis
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks

from opsmeter_site.lib.wire import encode
from tests.factories import make_workspace

# Bounded and repeatable: the same cases on every run.
EXAMPLES = 12
CONFIG = schemathesis.Config.from_dict(
    {"seed": 1, "generation": {"deterministic": True, "max-examples": EXAMPLES, "database": "none"}}
)


# The contract is wider than any schema: dates may be written in several ways, names in any case, one bad event does not
# refuse a batch, unknown parameters are ignored; and narrower: decimals are counted, dates have a range.
TOLERANCES = [checks.negative_data_rejection, checks.positive_data_acceptance]


@schemathesis.serializer("application/x-protobuf")
def _any_bytes(_context, value):
    """Bodies in protobuf are described as bytes, so bytes are what is tried; real ones are in the tests of OTLP."""
    return bytes(getattr(value, "data", None) or str(value).encode())


class _Product:
    """The WSGI application of the running test: cases are made while tests are collected, before there is one."""

    application = None

    def __call__(self, environ, start_response):
        return self.application(environ, start_response)


PRODUCT = _Product()
DOCUMENT = json.loads(encode(SchemaGenerator().get_schema(request=None, public=True)))
schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
schema.app = PRODUCT


@pytest.fixture
def credentials(app):
    """Of the owner of a workspace that may send as much as it likes."""
    PRODUCT.application = app.application
    opened = make_workspace("enterprise", requests_per_minute=1_000_000)
    return {"Authorization": f"Bearer {opened.access_token_plain}", "X-API-Key": opened.api_key_plain}


@pytest.mark.django_db
def test_the_document_is_valid_and_without_warnings():
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
def test_the_product_does_what_the_document_says(case, credentials):
    case.call_and_validate(headers=credentials, excluded_checks=TOLERANCES)
