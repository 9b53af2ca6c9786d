"""What spoils a training and leaves a dataset loadable is found."""

import pytest

import collect
from benchmarks.corruptions import judge
from pp_recorder.checks import DatasetView, run_checks
from pp_recorder.checks.cli import main as inspect_main
from tests import planted

# One of each sort, cheap ones; the others are long tests.
QUICK = [
    "one joint in degrees, one episode", "quaternion as x, y, z, w", "overlapping splits",
    "actions one step late", "joint velocities in degrees/s, one episode", "an episode twice",
    "reward 0 in a success", "success from the middle on", "a task text of spaces",
    "focal length 20 % too long", "another codec is declared", "upside down, one episode",
    "15 frames late, half the episodes", "every second frame repeated, one episode",
    "a frame of noise",
]  # fmt: skip
# What pp-inspect is known to miss (docs/inspect.md); it may find them.
MAY_MISS = 0.1
ANYWHERE = ["--expert", "reactive", "--start-mix", "home=0.4,random=0.3,anywhere=0.3"]
SMALL = ["--num-episodes", "4", "--resolution", "64", "--preset", "fast", "--workers", "1"]
HEALTHY = {
    "as make collect": ["--num-episodes", "3", "--resolution", "512", "--preset", "default"],
    "plain": [],
    "hasty": ["--steps-per-segment", "20"],
    "another seed and size": ["--seed", "77", "--resolution", "96x128"],
    "reactive": ["--expert", "reactive"],
    "from anywhere": ANYWHERE,
    "hand poses": ["--expert", "reactive", "--control-mode", "ee_pose"],
    "disturbed": [*ANYWHERE, "--action-noise", "0.1"],
    "light": ["--randomize", "light"],
    "full": [*ANYWHERE, "--randomize", "full"],
    "friction": ["--grasp", "friction"],
    "three objects": ["--use-ycb", "--num-objects", "3", "--random-yaw"],
    "60 Hz": ["--fps", "60"],
    "15 Hz": ["--fps", "15"],
    "front camera": ["--cameras", "cam_front"],
    "four cameras": ["--cameras", "cam_high", "cam_wrist", "cam_front", "cam_side"],
    "AV1": ["--codec", "av1"],
    "packed": ["--video-files", "packed"],
    "no pictures": ["--no-cameras"],
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "recorded"
    assert collect.main([*planted.OPTIONS, "--output", str(root)]) == 0
    return root


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_corruption_is_found(recorded, tmp_path, name):
    assert judge(recorded, tmp_path / "set", name)["outcome"] != "missed"


def test_a_copy_without_a_corruption_is_healthy(recorded, tmp_path):
    copy = planted.Copy(recorded, tmp_path / "set")
    copy.save()
    assert [f for r in run_checks(DatasetView(copy.root)) for f in r.findings] == []


@pytest.mark.long
def test_nine_of_ten_planted_corruptions_are_found(recorded, tmp_path):
    rows = [judge(recorded, tmp_path / str(k), name) for k, name in enumerate(planted.PLANTED)]
    missed = [row["name"] for row in rows if row["outcome"] == "missed"]
    assert len(rows) >= 80
    assert len(missed) <= MAY_MISS * len(rows), missed


@pytest.mark.long
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_dataset(tmp_path, name):
    root = str(tmp_path / "set")
    assert collect.main([*SMALL, *HEALTHY[name], "--output", root]) == 0
    assert inspect_main([root, "--strict"]) == 0
