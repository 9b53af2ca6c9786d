"""The HTTP interface held to its own OpenAPI document."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from pp_bridge.settings import TOKEN_VARIABLE
from tests.pp_bridge.server import SMALL_IMAGES, TIMEOUT, BridgeServer
from tests.pp_bridge.test_web_process import TOKEN

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    variables = {TOKEN_VARIABLE: TOKEN}
    with BridgeServer(
        tmp_path_factory.mktemp("root"), *SMALL_IMAGES, variables=variables
    ) as running:
        running.client.headers.update(HEADERS)
        yield running


def hold_to_document(server, headers, max_examples):
    """Send what the document allows to a service, and check the answers by it; return how many."""
    document = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    document = document.exclude(path_regex=r"\.mjpeg$")  # it never ends
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 12
    answers = Counter()
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=max_examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def hold(case):
            # A schema can't say that a name leads outside the root, or that a text is no offer.
            response = case.call_and_validate(
                headers=headers, timeout=TIMEOUT, excluded_checks=[positive_data_acceptance]
            )
            answers[response.status_code] += 1

        hold()
        assert server.process.poll() is None
    return answers


def test_answers_are_as_documented(server):
    answers = hold_to_document(server, HEADERS, max_examples=10)
    assert answers.keys() > {200, 401, 404, 422}
    server.client.post("/collect/stop")
