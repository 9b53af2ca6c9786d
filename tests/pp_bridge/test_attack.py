"""What strangers send to the web's process, and put under its root: small parts of tests.attack."""

import json
import os
import re
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pp_bridge import api
from pp_bridge.catalog import DatasetCatalog
from pp_bridge.messages import Reply
from pp_bridge.shared_state import SharedState
from pp_recorder.dataset.reader import Dataset, DatasetError
from tests import attack, hostile
from tests.attack import TOKEN
from tests.pp_bridge.server import TIMEOUT, WebServer
from tests.pp_bridge.test_service import ServiceHarness

OWN = ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"})
FOREIGN = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "x"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.example"},
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    hostile.make_sound(root / "sound")
    return root / "sound"


@pytest.fixture(scope="module")
def names(sound):
    return hostile.make_all(sound, sound.parent)


@pytest.fixture(scope="module")
def web(sound, names):
    with WebServer(sound.parent, TOKEN) as running:
        yield running


@pytest.fixture
def paths(web):
    document = web.client.get("/openapi.json").json()
    return [
        (method, path.format(name="sound", episode=0, camera="cam_high"))
        for path, operations in document["paths"].items()
        for method in operations
    ]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_get_nothing(web, paths, headers):
    others = [("get", "/openapi.json"), ("get", "/nothing"), ("get", f"{api.ALIAS}/collect/status")]
    for method, path in [*paths, *others]:
        refused = web.client.request(method, path, headers=headers)
        assert refused.status_code == 403, path
        assert refused.json()["detail"].startswith("pages of other sites may not do this")


@pytest.mark.parametrize("headers", [*FOREIGN, *OWN], ids=str)
def test_other_sites_may_link_to_the_page(web, headers):
    for path in ("/", f"{api.ALIAS}/"):
        page = web.client.get(path, headers=headers)
        assert page.status_code == 200
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("headers", OWN, ids=str)
@pytest.mark.parametrize(
    "where",
    [
        {},
        {"Host": "robots.example", "Origin": "https://robots.example"},
        {"Host": "robots.example:8443", "Origin": "https://robots.example:8443"},
    ],
    ids=["direct", "proxy", "proxy and port"],
)
def test_the_own_page_works_also_behind_a_proxy(web, headers, where):
    for path in ("/collect/status", "/datasets", "/datasets/sound/episodes/0/cam_high.mp4"):
        answer = web.client.get(path, headers={**headers, **where})
        assert answer.status_code == 200
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    session = web.client.post("/session", json={"token": TOKEN}, headers={**headers, **where})
    assert session.status_code == 204
    with web.client.stream("GET", "/live/cam_high.mjpeg", headers={**headers, **where}) as live:
        assert live.status_code == 200


def test_every_dataset_fails_alone(sound, names):
    catalog = DatasetCatalog(sound.parent)
    for name in ["sound", *names]:
        for read in (
            lambda name: catalog.episodes(name, 6),
            lambda name: catalog.video(name, 0, "cam_high"),
            lambda name: catalog.thumbnail(name, 1, "cam_wrist"),
            lambda name: catalog.version(name),
        ):
            try:
                assert read(name)
            except DatasetError:
                assert name != "sound"
    catalog.close()


def test_hostile_datasets_are_answered_in_words(web, names):
    listed = {entry["name"]: entry for entry in web.client.get("/datasets").json()}
    assert listed["sound"] == {"name": "sound", "episodes": 2, "frames": 36}
    assert listed.keys() >= set(names)
    for name in ("total_episodes-5-2.0", "total_frames-1-1e400", "info-nested", "info-is-a-pipe"):
        assert listed[name]["error"].startswith(f"{name}/meta/info.json") or "_" in name
        assert attack.visit(web.client, name) == {404: 3}
    for name in names[::9]:
        assert attack.visit(web.client, name).keys() <= {200, 404}, name
    assert attack.visit(web.client, "sound") == {200: 3}
    assert memory(web) < 1e9


def memory(web: WebServer) -> float:
    """Return the most memory that the web's process had, bytes."""
    status = Path(f"/proc/{web.process._process.pid}/status").read_text()
    return float(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1000


@pytest.mark.parametrize("name", ["total_episodes-0-1000000000", "info-nested", "fps-1-1e400"])
def test_a_hostile_dataset_has_a_report_or_a_reason(web, name):
    response = web.client.get(f"/datasets/{name}/report")
    assert response.status_code in (200, 404)
    text = response.text
    assert str(web.root) not in text
    assert '"exit_status": 0' not in text


def test_a_dataset_is_believed_as_far_as_its_files_show(sound, names, tmp_path):
    for name, message in {
        "total_episodes-0-1000000000": "must list the episodes 0..999999999 in order",
        "episodes-have-no-end": "claims 2000000 rows",
        "a-task-list-has-no-end": "values, in",
        "video_path-0--video_key-4000000": "the field 'video_key' with the format",
    }.items():
        with pytest.raises(DatasetError, match=message):
            Dataset(sound.parent / name).video_path(0, "observation.images.cam_high")


@pytest.mark.parametrize("number", ["1.0", "1_0", "%201", "+1", "true", "1e0", "9" * 20, "%D9%A1"])
def test_integers_are_integers(web, number):
    for path in (
        f"/datasets/sound/episodes/{number}/cam_high.jpg",
        f"/datasets/sound/episodes/{number}/cam_high.mp4",
        f"/datasets/sound/episodes?last={number}",
    ):
        response = web.client.get(path)
        assert response.status_code == 422
        assert "whole number of at most 15 digits" in response.json()["detail"]


@pytest.mark.parametrize("value", [True, 1.0, 10**30, "1", float("nan"), 1e308, -1])
def test_integers_of_a_request_are_integers(web, value):
    for name in ("num_episodes", "seed", "first_attempt", "steps_per_segment"):
        body = {"output_dir": "a", "num_episodes": 1, name: value}
        content = json.dumps(body)
        response = web.client.post(
            "/collect/start", content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422, name
        assert name in response.json()["detail"]


def test_waiting_and_abandoned_requests_hold_nobody_up(web):
    for k in range(60):
        attack.abandon(web.port, "POST", "/collect/stop")
        attack.abandon(web.port, "GET", f"/datasets/{['sound', 'fps-0-0'][k % 2]}/report")
    waiting = [socket.create_connection(("127.0.0.1", web.port), TIMEOUT) for _ in range(60)]
    for k, client in enumerate(waiting):
        path = ("/collect/stop", "/datasets/sound/report")[k % 2]
        client.sendall(attack._request(("POST", "GET")[k % 2], path, ""))
    for path in ("/healthz", "/collect/status", "/datasets", "/datasets/sound/episodes", "/"):
        assert web.client.get(path).status_code == 200
    commands = web.process.commands
    for client in waiting:
        client.close()
    time.sleep(0.5)  # for the last ones to be seen leaving
    assert commands.poll(TIMEOUT)
    assert commands.recv().name == "stop", "what was sent to the simulator is carried out"
    commands.send(Reply("conflict", "nothing is being collected", {}))
    assert not commands.poll(1.0), "what waited was given up with its client"


def test_strange_requests_are_refused_in_words(web, names):
    seen = attack.fuzz(web.port, names, 300, seed=7)
    assert {"200", "400", "403", "404", "422"} < seen.keys()
    assert web.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("depth", range(150, 1000, 50))
def test_a_nested_value_is_explained(web, depth):
    body = '{"output_dir": "a", "num_episodes": ' + "[" * depth + "]" * depth + "}"
    headers = {"Content-Type": "application/json"}
    response = web.client.post("/collect/start", content=body, headers=headers)
    assert response.status_code == 422


def test_the_document_tells_what_needs_a_token(tmp_path):
    shared_state = SharedState(["a"], (8, 8))
    for token in (None, TOKEN):
        app = api.make_app(shared_state, token, local_only=token is None)
        catalog = DatasetCatalog(tmp_path)
        api.add_collection(app, shared_state, token, catalog, lambda _: None, {})
        catalog.close()
        for path, operations in app.openapi()["paths"].items():
            for operation in operations.values():
                is_open = token is None or path in ("/healthz", "/session")
                needed = None if is_open else [{"token": []}, {"cookie": []}]
                assert operation.get("security") == needed, path
                assert ("401" in operation["responses"]) != (is_open and path != "/session")


def test_messages_name_no_folders(tmp_path):
    catalog = DatasetCatalog(tmp_path)
    for text, shown in {
        f"{tmp_path}/set/meta/info.json: no": "set/meta/info.json: no",
        f"[Errno 2] no: 'file:{tmp_path}/set/a b.mp4'": "[Errno 2] no: 'file:set/a b.mp4'",
        "'/usr/lib/python3/x.py', /tmp/y.mp4": "'x.py', y.mp4",
        f"the root {tmp_path} is gone": f"the root {tmp_path.name} is gone",
        "a/b, 1 / 2, http://host/path": "a/b, 1 / 2, http://host/path",
        "\ud800": "\\ud800",
        "x" * 10_000: "x" * 1000,
    }.items():
        assert catalog.without_paths(text) == shown
    catalog.close()


def test_refusals_name_no_folders(web):
    for path in ("/datasets/info-cut/episodes", "/datasets/nothing/episodes"):
        detail = web.client.get(path).json()["detail"]
        assert "/tmp" not in detail
        assert str(web.root) not in detail


@pytest.mark.parametrize(
    ("table", "spoil"),
    [
        ("data", lambda path: os.truncate(path, 100)),
        ("data", lambda path: pq.write_table(pa.table({"x": ["y"]}), path)),
        ("data", lambda path: (path.unlink(), path.mkdir())),
        ("meta/episodes", lambda path: path.write_bytes(b"PAR1" + b"noise" * 99 + b"PAR1")),
        ("meta/episodes", lambda path: path.unlink()),
    ],
)
def test_a_damaged_file_of_the_running_collection_does_not_end_the_service(tmp_path, table, spoil):
    harness = ServiceHarness(tmp_path)
    harness.send_command("start", num_episodes=100)
    while harness.service.status()["episodes"] < 2:
        harness.service.tick()
    spoil(tmp_path / "set" / table / "chunk-000/file-001.parquet")
    reply = harness.send_command("stop")
    assert reply.reason is None
    assert reply.status["outcome"] == "stopped"
    error = reply.status["last_error"]
    assert error is None or error.startswith("the dataset is intact, but not tidied up: ")
    assert harness.send_command("start", output_dir="next").reason is None


def test_long_texts_do_not_end_the_service(tmp_path):
    harness = ServiceHarness(tmp_path)
    assert harness.send_command("start", task="\U0001f916" * 1000).reason is None
    harness.service.tick()
    assert harness.shared_state.status()["request"]["task"] == "\U0001f916" * 1000
