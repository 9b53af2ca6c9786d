"""The HTTP interface held to its own OpenAPI document."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks

from tests.bridge_server import SMALL, BridgeServer

# A valid request may be refused: something is running, or a name leads outside.
_SKIPPED = [checks.positive_data_acceptance] if hasattr(checks, "positive_data_acceptance") else []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with BridgeServer(tmp_path_factory.mktemp("root"), *SMALL) as running:
        yield running


@pytest.fixture
def document(server):
    found = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    return found.exclude(path_regex=r"\.mjpeg$")  # it never ends


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case, server):
    case.call_and_validate(base_url=server.address, excluded_checks=_SKIPPED)
    if server.status()["state"] == "collecting":
        server.client.post("/collect/stop")
    assert server.process.poll() is None
