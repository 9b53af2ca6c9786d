"""The HTTP interface of a real service with real physics."""

import io
import json
import threading
import time

import av
import httpx
import numpy as np
import pytest

from pp_bridge.api import ALIAS
from pp_recorder.dataset.reader import Dataset
from tests.pp_bridge.server import SMALL_IMAGES, BridgeServer, WebServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with BridgeServer(tmp_path_factory.mktemp("root") / "datasets", *SMALL_IMAGES) as running:
        yield running


@pytest.fixture(scope="module")
def collected(server):
    """A dataset of two episodes."""
    assert server.start("two", num_episodes=2).status_code == 202
    assert server.wait_until_idle()["outcome"] == "complete"
    return "two"


def detail(response: httpx.Response) -> str:
    return response.json()["detail"]


def test_a_collection_is_complete_and_sound(server, collected):
    status = server.status()
    assert (status["episodes"], status["attempts"]) == (2, 2)
    assert status["frames"] == 2 * status["frames_per_episode"] == 2 * 18
    assert status["last_error"] is None
    assert {"name": "two", "episodes": 2, "frames": 36} in server.client.get("/datasets").json()
    report = server.client.get("/datasets/two/report").json()
    assert report["dataset"] == "two"
    assert report["exit_status"] == 0, report


def test_defaults_are_those_of_the_command_line(server):
    schema = server.client.get("/openapi.json").json()["components"]["schemas"]["StartRequest"]
    defaults = {key: field.get("default") for key, field in schema["properties"].items()}
    assert (defaults["seed"], defaults["steps_per_segment"]) == (12345, None)
    assert schema["properties"]["control_mode"]["enum"] == ["joint_pos", "ee_pose"]
    assert set(schema["required"]) == {"num_episodes", "output_dir"}


def test_the_same_request_gives_the_same_dataset(server, collected):
    assert server.start("again", num_episodes=2).status_code == 202
    server.wait_until_idle()
    first, second = (Dataset(server.root / name).table for name in ("two", "again"))
    assert first.equals(second)


def test_last_episodes_and_their_videos(server, collected):
    episodes = server.client.get("/datasets/two/episodes", params={"last": 1}).json()
    assert [e["episode"] for e in episodes] == [1]
    assert episodes[0]["cameras"] == ["cam_high", "cam_wrist"]
    path = "/datasets/two/episodes/1/cam_high.mp4"
    whole = server.client.get(path)
    assert whole.headers["content-type"] == "video/mp4"
    part = server.client.get(path, headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert b"moov" in whole.content
    with av.open(io.BytesIO(whole.content)) as video:  # of this episode alone
        assert sum(1 for _ in video.decode(video=0)) == round(episodes[0]["length_s"] * 30)
    thumbnail = server.client.get("/datasets/two/episodes/1/cam_high.jpg")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content.startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize(
    "path",
    [
        "/datasets/nothing/episodes",
        "/datasets/nothing/report",
        "/datasets/two/episodes/2/cam_high.mp4",
        "/datasets/two/episodes/-1/cam_high.mp4",
        "/datasets/two/episodes/0/cam_low.mp4",
        "/datasets/two/episodes/2/cam_high.jpg",
        "/datasets/two/episodes/0/..%2f..%2fmeta.mp4",
        "/datasets/..%2f../episodes",
        "/live/cam_low.mjpeg",
    ],
)
def test_what_is_not_there_is_not_found(server, collected, path):
    response = server.client.get(path)
    assert response.status_code == 404
    assert response.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"num_episodes": 0}, "num_episodes: Input should be greater than or equal to 1, got 0"),
        ({"num_episodes": "3"}, "num_episodes: Input should be a valid integer, got '3'"),
        ({"num_episodes": 1.5}, "num_episodes: Input should be a valid integer"),
        ({"num_episodes": None}, "num_episodes: Input should be a valid integer"),
        ({"skill": "juggle"}, "skill: Input should be 'pick_place', got 'juggle'"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"steps_per_segment": 0}, "steps_per_segment: Input should be greater"),
        ({"noise_rad": 7}, "noise_rad: Input should be less than or equal to 0.2, got 7"),
        ({"noise_rad": 0.21}, "noise_rad: Input should be less than or equal to 0.2, got 0.21"),
        ({"control_mode": "ee_delta"}, "control_mode: Input should be 'joint_pos' or 'ee_pose'"),
        ({"expert": "reactive", "start_mix": "home=2"}, "'start_mix' the share of home must"),
        (
            {"start_mix": "anywhere"},
            "'expert' waypoints cannot start from anywhere; try 'expert' re",
        ),
        ({"joint_speed": 1}, "'joint_speed' is for 'expert' reactive, got 'expert' waypoints"),
        ({"task": " "}, "'task' must not be empty"),
        ({"fps": 7}, "'fps' must divide the physics rate of 240 Hz, got 7"),
        ({"fps": 10**4}, "fps: Input should be less than or equal to 1000"),
        ({"num_objects": 2}, "'num_objects' must be from 1 to 1, because no object is there twice"),
        ({"num_objects": 7, "use_ycb": True}, "'num_objects' must be from 1 to 6"),
        ({"num_objects": 10**400}, "num_objects: Input should be less than or equal to 1000"),
        ({"object": "unicorn", "use_ycb": True}, "object must be one of ['004_sugar_box', "),
        ({"object": "x" * 1001}, "object: String should have at most 1000 characters"),
        ({"randomize": "wild"}, "randomize: Input should be 'none', 'light' or 'full', got 'wild'"),
        ({"preset": 7}, "preset: Input should be 'default', 'fast', 'filament' or 'pretty', got 7"),
        ({"grasp": "glue"}, "grasp: Input should be 'fixed_joint' or 'friction', got 'glue'"),
        ({"use_ycb": 1}, "use_ycb: Input should be a valid boolean, got 1"),
        ({"cameras": []}, "cameras: List should have at least 1 item"),
        ({"cameras": ["cam_low"]}, "cameras.0: Input should be 'cam_high', 'cam_wrist', "),
        ({"cameras": ["cam_high"] * 2}, "'cameras' must be some of cam_high, cam_wrist, cam_front"),
        ({"cameras": ["cam_high"] * 5}, "cameras: List should have at most 4 items"),
        ({"resolution": 2048}, "resolution: Extra inputs are not permitted"),
        ({"simulator": "isaacsim"}, "simulator: Extra inputs are not permitted"),
        ({"ycb_meshes": "/etc"}, "ycb_meshes: Extra inputs are not permitted"),
        ({"start_policy": "os:system"}, "start_policy: Extra inputs are not permitted"),
        ({"policy": "os:system"}, "policy: Extra inputs are not permitted"),
        ({"keep": "some"}, "keep: Input should be 'success' or 'all'"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"sead": 3}, "sead: Extra inputs are not permitted, got 3; did you mean seed?"),
        ({"output_dir": ""}, "output_dir: String should have at least 1 character"),
        ({"output_dir": "../escape"}, "must be a folder directly below"),
        ({"output_dir": "/etc/escape"}, "must be a folder directly below"),
        ({"output_dir": "a/../../escape"}, "must be a folder directly below"),
        ({"output_dir": "a/b"}, "must be a folder directly below"),
        ({"output_dir": "."}, "must be a folder directly below"),
        ({"output_dir": ".hidden"}, "must be a folder directly below"),
        ({"output_dir": "a\0b"}, "must be a folder directly below"),
        ({"output_dir": "x" * 300}, "must be a folder directly below"),
        ({"output_dir": "a\nb"}, "must be a folder directly below"),
    ],
)
def test_a_bad_request_is_explained(server, request_, reason):
    response = server.client.post(
        "/collect/start", json={"output_dir": "bad", "num_episodes": 1, **request_}
    )
    assert response.status_code == 422
    assert reason in detail(response)
    assert server.status()["state"] == "idle"
    assert not (server.root / "bad").exists()


def test_a_link_does_not_lead_out(server, tmp_path):
    (server.root / "link").symlink_to(tmp_path)
    assert server.start("link").status_code == 422
    assert server.client.get("/datasets/link/episodes").status_code == 404
    assert list(tmp_path.iterdir()) == []


def test_a_whole_path_below_the_root_is_accepted(server, collected):
    response = server.start(str(server.root.resolve() / "two"))
    assert response.status_code == 409
    assert "two exists and is not an empty directory" in detail(response)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, "says 'application/x-www-form-url"),
        ({"Content-Type": "text/plain"}, "says 'text/plain'"),
        ({}, "is missing"),
    ],
)
@pytest.mark.parametrize("path", ["/collect/start", "/session", "/live/offer"])
def test_a_body_that_is_not_declared_as_json_is_explained(server, path, headers, found):
    """As `curl -d` sends it; to accept it would let pages of other sites send such forms."""
    body = b'{"output_dir": "undeclared", "num_episodes": 1}'
    response = server.client.post(path, content=body, headers=headers)
    assert response.status_code == 422
    assert detail(response).startswith(
        "the body must be JSON and declared so, but the header Content-Type " + found
    )
    assert detail(response).endswith("with curl: -H 'Content-Type: application/json' -d '{...}'")
    assert not (server.root / "undeclared").exists()


def test_a_missing_body_is_explained(server):
    response = server.client.post("/collect/start")
    assert response.status_code == 422
    assert detail(response) == "the body is missing; it must be JSON, see /openapi.json"


def test_a_scene_lasts_for_its_collection(server, collected):
    """And what is left out is the service's, so that the next one is as before."""
    scene = {"cameras": ["cam_side"], "use_ycb": True, "fps": 20}
    refused = server.start("two", **scene)
    assert refused.status_code == 409
    assert refused.json()["detail"].endswith("or continue an interrupted collection with 'resume'")
    assert server.status()["cameras"] != ["cam_side"], "nothing was done for it"
    assert server.start("other-scene", **scene).json()["cameras"] == ["cam_side"]
    server.wait_until_idle()
    assert server.client.get("/live/cameras").json() == ["cam_side"]
    assert server.client.get("/live/cam_high.mjpeg").status_code == 404
    collection = Dataset(server.root / "other-scene").collection
    assert (collection["config"]["timing"]["control_hz"], list(collection["cameras"])) == (
        20,
        ["cam_side"],
    )
    assert server.start("scene-of-the-service").json()["cameras"] == ["cam_high", "cam_wrist"]
    server.wait_until_idle()
    first, second = (Dataset(server.root / name) for name in ("two", "scene-of-the-service"))
    assert first.collection["config"] == second.collection["config"]
    assert second.table.equals(first.table.slice(0, len(second.table)))


def test_a_viewer_of_a_camera_that_is_gone_gets_the_end(server):
    server.start("watched-before", cameras=["cam_side"], num_episodes=1000)
    with server.client.stream("GET", "/live/cam_side.mjpeg") as response:
        pieces = response.iter_raw()
        assert b"picture" in next(pieces)
        server.client.post("/collect/stop")
        server.start("watched-after")
        assert sum(map(len, pieces)) >= 0  # it ends
    server.wait_until_idle()


def test_malformed_json_is_explained(server):
    response = server.client.post(
        "/collect/start", content=b'{"num', headers={"content-type": "application/json"}
    )
    assert response.status_code == 422
    assert "the body must be JSON: Unterminated string" in detail(response)


@pytest.mark.parametrize("body", [b"\x00\xff\xfe", b"[" * 100_000], ids=["bytes", "nested"])
def test_a_body_that_no_parser_can_read_is_explained(server, body):
    headers = {"content-type": "application/json"}
    response = server.client.post("/collect/start", content=body, headers=headers)
    assert response.status_code == 422
    assert detail(response) == "the body must be JSON in UTF-8, and not nested as deeply"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused(server, chunked):
    large = b"[" * 200_000  # fits into sockets: what is never read may reset the connection
    content = (part for part in [large]) if chunked else large
    headers = {"content-type": "application/json"}
    response = server.client.post("/collect/start", content=content, headers=headers)
    assert response.status_code == 413
    assert "131072 bytes" in detail(response)


def test_only_one_collection_runs_and_it_stops_when_asked(server):
    assert server.start("long", num_episodes=1000).status_code == 202
    refused = server.start("other")
    assert refused.status_code == 409
    assert "long is being collected; stop it, or wait" in detail(refused)
    server.wait(lambda status: status["episodes"] >= 1 and status["frame"] > 0)
    stopped = server.client.post("/collect/stop").json()
    assert (stopped["state"], stopped["outcome"]) == ("idle", "stopped")
    dataset = Dataset(server.root / "long")
    assert dataset.num_episodes == stopped["episodes"]
    assert len(dataset.table) == 18 * dataset.num_episodes
    again = server.client.post("/collect/stop")
    assert (again.status_code, detail(again)) == (409, "nothing is being collected")


def test_a_stopped_collection_goes_on_and_ends_as_if_undisturbed(server, collected):
    server.start("resumed", num_episodes=200)
    server.wait(lambda status: status["episodes"] == 1)
    server.client.post("/collect/stop")
    held = server.status()["episodes"]
    response = server.start("resumed", num_episodes=held + 1, resume=True)
    assert response.status_code == 202
    assert server.wait_until_idle()["episodes"] == held + 1
    assert (
        Dataset(server.root / "resumed")
        .table.slice(0, 36)
        .equals(Dataset(server.root / "two").table)
    )
    other = server.start("resumed", num_episodes=held + 2, resume=True, seed=1)
    assert other.status_code == 409
    assert "seed was 12345, is now 1" in detail(other)


def test_every_path_has_its_second_name(server):
    paths = [path for path in server.client.get("/openapi.json").json()["paths"] if "{" not in path]
    assert "/collect/status" in paths
    for path in paths:
        first, second = (server.client.get(prefix + path).status_code for prefix in ("", ALIAS))
        assert first == second, path


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
)
def test_pages_of_other_sites_are_refused(server, headers):
    assert server.client.post("/collect/stop", headers=headers).status_code == 403


def test_no_other_site_may_read_answers(server):
    response = server.client.get("/collect/status", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in response.headers


def test_the_page_loads_nothing_from_elsewhere(server):
    response = server.client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "//" not in response.text.replace("// ", "").replace("//\n", "")


def test_prometheus_reads_what_was_collected(server, collected):
    lines = server.client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values["pp_bridge_episodes_total"]) >= 2
    assert float(values["pp_bridge_ready"]) == 1.0


@pytest.mark.parametrize("collecting", [False, True])
def test_the_jpeg_stream_shows_the_cameras(server, collecting):
    if collecting:
        server.start("watched", num_episodes=1000)
    jpegs = []
    with server.client.stream("GET", "/live/cam_high.mjpeg") as response:
        assert "boundary=picture" in response.headers["content-type"]
        received = b""
        for piece in response.iter_raw():
            received += piece
            jpegs = [part for part in received.split(b"--picture")[1:-1] if b"\xff\xd8\xff" in part]
            if len(jpegs) >= 3:
                break
    if collecting:
        server.client.post("/collect/stop")
        assert len(set(jpegs)) > 1, "the arm moves"
    assert all(len(jpeg) > 700 for jpeg in jpegs), "not black"


def test_a_viewer_of_a_new_scene_waits_for_its_images(tmp_path):
    def images(level):
        return {name: np.full((32, 32, 3), level, np.uint8) for name in web.shared_state.cameras}

    with WebServer(tmp_path) as web:
        web.shared_state.publish_images(images(250))
        web.shared_state.show(["cam_high"])
        with web.client.stream("GET", "/live/cam_high.mjpeg") as response:
            time.sleep(0.3)  # what is streamed too early is streamed by then
            web.shared_state.publish_images(images(120))
            received = b""
            for piece in response.iter_raw():
                received += piece
                if received.count(b"--picture") > 1:
                    break
    jpeg = received.split(b"--picture")[1].partition(b"\xff\xd8\xff")
    with av.open(io.BytesIO(b"".join(jpeg[1:]))) as container:
        assert 100 < next(container.decode(video=0)).to_ndarray(format="rgb24").mean() < 140


def test_what_is_no_offer_is_refused(server):
    for sdp in ("", "v=0", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "\0" * 100):
        response = server.client.post("/live/offer", json={"type": "offer", "sdp": sdp})
        assert response.status_code == 422
        assert "the offer can't be answered" in detail(response)


def test_a_vanished_disk_ends_the_collection_and_not_the_service(server):
    server.start("lost", num_episodes=1000)
    kept = server.wait(lambda status: status["episodes"] >= 1)["episodes"]
    away = server.root.with_name("away")
    server.root.rename(away)
    try:
        status = server.wait_until_idle()
        assert status["outcome"] == "failed"
        assert "No such file or directory" in status["last_error"]
        refused = server.start("other")
        assert refused.status_code == 507
        assert "is gone; bring it back" in detail(refused)
        assert server.client.get("/datasets").status_code == 507
        assert not server.root.exists(), "nothing was written where the disk is missing"
    finally:
        away.rename(server.root)
    assert Dataset(server.root / "lost").num_episodes >= kept
    assert server.start("lost", num_episodes=status["episodes"] + 1, resume=True).status_code == 202
    assert server.wait_until_idle()["outcome"] == "complete"


def test_many_requests_at_once_are_all_answered(server):
    answers: list[int] = []

    def hurry(index: int) -> None:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            request = {"output_dir": f"hurry{index}", "num_episodes": 1000}
            answers.append(client.post("/collect/start", json=request).status_code)

    threads = [threading.Thread(target=hurry, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.client.post("/collect/stop")
    assert sorted(answers) == [202] + [409] * 7
    assert sum((server.root / f"hurry{index}").exists() for index in range(8)) == 1


def test_log_lines_are_json(server):
    messages = [json.loads(line)["message"] for line in server.lines]
    assert {"listening", "ready", "started", "stopped", "refused"} <= set(messages)
