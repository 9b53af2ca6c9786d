"""The HTTP interface held to its own OpenAPI document."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.bridge_server import SMALL, BridgeServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with BridgeServer(tmp_path_factory.mktemp("root"), *SMALL) as running:
        yield running


def test_answers_are_as_documented(server):
    document = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    document = document.exclude(path_regex=r"\.mjpeg$")  # it never ends
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 12
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def hold(case):
            case.call_and_validate()
            if server.status()["state"] == "collecting":
                server.client.post("/collect/stop")

        hold()
        assert server.process.poll() is None
