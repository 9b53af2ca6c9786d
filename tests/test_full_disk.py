"""A full disk ends a command with what is safe and what to do; folders for outputs are made."""

import errno
import resource
import shutil

import pytest

import collect
from pp_collect import evaluate, replay
from pp_recorder.checks import cli
from pp_recorder.dataset import merge, packing
from pp_recorder.dataset.reader import Dataset
from pp_recorder.output import describe_error

WORDS = ["--resolution", "64", "--preset", "fast", "--workers", "1", "--steps-per-segment", "8"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "first"
    words = ["--num-episodes", "2", "--video-files", "per-episode", "--output", str(root)]
    assert collect.main([*WORDS, *words]) == 0
    return root


@pytest.fixture
def fill_disk():
    """Return `fill_disk()`, after which no file grows beyond 4 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_only_a_full_disk_is_called_so():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert describe_error(full, "all is safe") == (
        "the disk is full ([Errno 28] No space left on device); all is safe"
    )
    assert describe_error(OSError("gone"), "all is safe") == "gone"


def test_a_merge_leaves_nothing(dataset, tmp_path, fill_disk, capsys):
    other = shutil.copytree(dataset, tmp_path / "other")
    fill_disk()
    assert merge.main([str(dataset), str(other), "--output", str(tmp_path / "whole")]) == 2
    error = capsys.readouterr().err
    assert "error: the disk is full (" in error
    assert f"the sources are as they were, and nothing is left in {tmp_path / 'whole'}" in error
    assert "once there is room, merge again" in error
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_packing_keeps_all_episodes(dataset, tmp_path, fill_disk, capsys, monkeypatch, processes):
    monkeypatch.setattr(packing, "_CLIPS_PER_PROCESS", 1)
    root = shutil.copytree(dataset, tmp_path / "set")
    fill_disk()
    assert packing.main([str(root)], processes=processes) == 2
    error = capsys.readouterr().err
    assert "error: the disk is full (" in error
    assert f"{root} still has all its episodes; once there is room, pack it again" in error
    assert Dataset(root).num_episodes == 2
    frames = Dataset(root).frames(1, "observation.images.cam_high")
    assert sum(1 for _ in frames) == Dataset(root).episodes[1]["length"]


def test_an_inspection_has_only_read(dataset, tmp_path, fill_disk, capsys):
    fill_disk()
    assert cli.main([str(dataset), "--html", str(tmp_path / "report.html")]) == 2
    error = capsys.readouterr().err
    assert "the report cannot be written: the disk is full (" in error
    assert f"{dataset} was only read; once there is room, inspect it again" in error


def test_new_pictures_say_what_to_delete(dataset, tmp_path, fill_disk, capsys):
    fill_disk()
    output = tmp_path / "sharp"
    assert replay.replay_main([str(dataset), "--render", str(output)]) == 2
    error = capsys.readouterr().err
    assert "error: the disk is full (" in error
    assert f"once there is room, the same command works, after {output} has been deleted" in error


def test_an_evaluation_says_what_is_missing(tmp_path, fill_disk, capsys):
    path = tmp_path / "result.json"
    fill_disk()
    words = ["--policy", "expert", "--num-episodes", "6", "--json", str(path)]
    assert evaluate.main(words) == 2
    out, error = capsys.readouterr()
    assert "success    6 of 6" in out
    assert "error: the disk is full (" in error
    assert "what has been printed is right, but --json or --videos is incomplete" in error


def test_folders_for_outputs_are_made(dataset, tmp_path):
    words = ["--num-episodes", "1", "--no-cameras", "--output", str(tmp_path / "a/b/c")]
    assert collect.main([*WORDS, *words, "--status-file", str(tmp_path / "s/t/status.json")]) == 0
    assert (tmp_path / "s/t/status.json").exists()
    assert cli.main([str(tmp_path / "a/b/c"), "--html", str(tmp_path / "r/s/report.html")]) == 0
    assert (tmp_path / "r/s/report.html").exists()
    assert cli.main([str(tmp_path / "a/b/c"), "--json", str(tmp_path / "j/k/report.json")]) == 0
    words = ["--policy", "expert", "--num-episodes", "1"]
    assert evaluate.main([*words, "--json", str(tmp_path / "e/f/result.json")]) == 0
    assert merge.main([str(tmp_path / "a/b/c"), "--output", str(tmp_path / "m/n/o")]) == 0
    output = tmp_path / "p/q/r"
    assert replay.replay_main([str(dataset), "--render", str(output), "--episode", "0"]) == 0
    assert Dataset(output).num_episodes == 1
