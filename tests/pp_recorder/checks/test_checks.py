"""Each defect planted into a healthy dataset is found, and healthy datasets have no findings."""

import re
import shutil

import pytest

import collect
from pp_recorder.checks import DatasetView, run_checks
from pp_recorder.checks.cli import main
from tests.pp_recorder.checks.defects import (
    DEFECTS,
    EPISODES,
    HIGH,
    black,
    edit_cell,
    edit_info,
    edit_video,
    limits,
)
from tests.pp_recorder.checks.foreign import FOREIGN_FPS, VIDEO


def find_problems(root):
    return [f for result in run_checks(DatasetView(root)) for f in result.findings]


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(dataset, name):
    plant, check, severity, message = DEFECTS[name]
    plant(dataset)
    found = find_problems(dataset)
    about = [f for f in found if f.check == check and f.severity == severity]
    assert about, found
    assert any(re.search(message, f.message) for f in about), about
    assert not [f for f in found if "could not be checked" in f.message]


def test_several_defects_are_found_at_once(dataset):
    for name in ("data missing", "mp4 missing", "tasks missing", "black", "stats missing"):
        DEFECTS[name][0](dataset)
    wanted = {"data", "video cam_wrist", "tasks", "pictures cam_high", "statistics"}
    assert wanted <= {f.check for f in find_problems(dataset)}


def test_a_healthy_dataset_has_no_findings(healthy, capsys):
    assert find_problems(healthy) == []
    assert main([str(healthy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("SOUND: ")
    assert any(line.startswith("PASS  tracking ") for line in lines)


def test_healthy_within_limits(dataset):
    limits()(dataset)
    assert find_problems(dataset) == []
    statuses = {r.name: r.status for r in run_checks(DatasetView(dataset))}
    assert statuses["joint limits"] == statuses["joint speed"] == "PASS"


# Datasets of other programs


def test_a_foreign_dataset_is_healthy(foreign):
    assert find_problems(foreign) == []


def test_defects_of_a_shared_video_name_the_episode(foreign):
    plant = edit_video(lambda images: black(images)[:47], FOREIGN_FPS, VIDEO)
    plant(foreign)
    messages = [f.message for f in find_problems(foreign)]
    assert "episode 2, frames 13..17 (5 of them): the picture is black" in messages


def test_overlapping_episodes_in_one_video(foreign):
    for side in ("from", "to"):
        name = f"videos/observation.image/{side}_timestamp"
        edit_cell(EPISODES, name, 2, lambda t: t - 1 / FOREIGN_FPS)(foreign)
    messages = [f.message for f in find_problems(foreign) if f.check == "episodes"]
    assert len(messages) == 1
    assert messages[0].startswith("episode 2, image: begins at 2.1667 s of videos/")


def test_a_dataset_without_cameras_or_collection(healthy, tmp_path):
    root = tmp_path / "set"
    options = ["--num-episodes", "1", "--steps-per-segment", "20", "--no-cameras"]
    assert collect.main([*options, "--output", str(root)]) == 0
    (root / "meta/collection.json").unlink()
    assert find_problems(root) == []


def test_a_dataset_without_episodes(foreign, tmp_path):
    for name in ("data", "meta/episodes", "videos"):
        shutil.rmtree(foreign / name)
    empty = {"total_episodes": 0, "total_frames": 0, "splits": {"train": "0:0"}}
    edit_info(**empty)(foreign)
    assert [f.message for f in find_problems(foreign)] == ["the dataset has no episode"]
    assert main([str(foreign), "--html", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize("column", ["stats/action/mean", f"stats/{HIGH}/mean", "data/chunk_index"])
def test_an_empty_cell_is_found(dataset, column):
    edit_cell(EPISODES, column, 1, None)(dataset)
    found = find_problems(dataset)
    assert any(f.severity == "error" for f in found)
    assert not [f for f in found if "could not be checked" in f.message]
