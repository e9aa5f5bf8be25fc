"""The schema against the app: schemathesis makes requests from the one and sends them to the other."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.test_auth import KEYS, configured

BEARER = {"authorization": f"Bearer {KEYS['ann']}"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ANSWERS = {
    ("GET", "/health"): {200},
    ("GET", "/ready"): {200},
    ("GET", "/metrics"): {200},
    ("GET", "/v1/models"): {200},
    ("GET", "/v1/models/{name}"): {404},
    ("POST", "/v1/audio/transcriptions"): {200, 400, 404, 415},
    ("POST", "/v1/audio/translations"): {200, 404, 415},
    ("GET", "/ui/api/settings"): {200},
    ("POST", "/ui/api/analyze"): {200, 404, 415},
    ("POST", "/ui/api/resteer"): {404},
}
"""What the tests have to have met at least once."""
MODELS = {
    "/v1/audio/transcriptions": "scripted",
    "/v1/audio/translations": "polyglot",
    "/ui/api/analyze": "scripted",
}


def test_every_operation_is_tested_here(app) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app())
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert {(operation.method.upper(), operation.path) for operation in operations} == set(ANSWERS)


@pytest.mark.parametrize(("method", "path"), ANSWERS)
def test_the_app_answers_as_its_schema_says(app, wav, method: str, path: str) -> None:
    operation = schemathesis.openapi.from_asgi("/openapi.json", app(**configured()))[path][method]
    statuses: set[int] = set()

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(), help_given=st.sampled_from(["none", "model", "model and audio"]))
    def check(case: schemathesis.Case, help_given: str) -> None:
        if path in MODELS and isinstance(case.body, dict) and help_given != "none":
            for field in ("steer", "chunking_strategy", "language", "temperature"):  # seldom right if made up
                case.body.pop(field, None)
            case.body |= {"model": MODELS[path]} | ({"file": wav} if help_given == "model and audio" else {})
        statuses.add(case.call_and_validate(checks=CHECKS, headers=BEARER).status_code)

    check()
    assert ANSWERS[method, path] <= statuses
