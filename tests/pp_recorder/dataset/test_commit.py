import errno
import fcntl
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import threading
import time

import pytest

import collect
from pp_recorder.dataset import commit as commit_module
from pp_recorder.dataset import packing
from pp_recorder.dataset.commit import LOCK, Commit, lock, unlock
from pp_recorder.dataset.reader import Dataset
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.dataset.writer import LeRobotWriter
from tests import crash

EPISODES = 4


def run(output, *options, episodes=EPISODES):
    arguments = ["--num-episodes", str(episodes), "--output", str(output), "--resume"]
    return collect.main([*crash.OPTIONS, *arguments, *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "whole"
    assert run(root) == 0
    return root


@pytest.fixture(scope="module")
def first_two(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "first_two"
    assert run(root, episodes=2) == 0
    return root


@pytest.fixture
def begun(first_two, tmp_path):
    """Copy the first two episodes of `whole`, to go on with."""
    shutil.copytree(first_two, tmp_path / "begun")
    return tmp_path / "begun"


@pytest.fixture
def part(whole, tmp_path):
    """Copy the whole dataset, for damage."""
    shutil.copytree(whole, tmp_path / "part")
    return tmp_path / "part"


@pytest.fixture(scope="module")
def apart(whole, tmp_path_factory):
    """Return the whole dataset with one video file per episode."""
    root = tmp_path_factory.mktemp("sets") / "apart"
    shutil.copytree(whole, root)
    packing.convert(root, "per-episode")
    return root


def video(root, episode, camera="cam_high"):
    return root / f"videos/observation.images.{camera}/chunk-000/episode_{episode:05d}.mp4"


def test_continuing_equals_never_having_stopped(whole, begun):
    assert run(begun) == 0
    assert crash.differences(whole, begun) == []


def test_kills_at_random_moments_lose_nothing(tmp_path):
    stats = crash.kill_and_resume(tmp_path / "killed", kills=6, seed=1)
    assert stats.problems == []
    episodes = crash.finished(tmp_path / "killed") + 1
    crash.collect(tmp_path / "killed", episodes)
    crash.collect(tmp_path / "whole", episodes)
    assert crash.differences(tmp_path / "killed", tmp_path / "whole") == []


def test_a_complete_dataset_is_left_as_it_is(whole, capsys):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    assert run(whole) == 0
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before
    assert "success    4 of 4 attempts" in capsys.readouterr().out


class TestEveryStepOfACommit:
    """The process dies after the n-th rename of the last commit."""

    @pytest.mark.parametrize("renames", range(10))
    def test_finished_episodes_survive(self, whole, begun, monkeypatch, renames):
        root = begun
        real, done = os.replace, []

        def dying(source, target):
            if "joined" in str(source):
                return real(source, target)
            if len(done) == renames:
                raise SystemExit("killed")
            done.append(target)
            return real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            patch.setattr(collect, "require_writable", lambda *_: None)
            patch.setattr(LeRobotWriter, "_resume", _resume_without_cutting)
            patch.setattr(LeRobotWriter, "abort", lambda self: None)
            with pytest.raises(SystemExit):
                run(root, episodes=3)
        assert Dataset(root).num_episodes in (2, 3)
        assert Dataset(root).rows(1)["action"].shape == (crash.LENGTH, 8)
        assert run(root) == 0
        assert crash.differences(whole, root) == []


def _resume_without_cutting(self, real=LeRobotWriter._resume):
    """Resume with the real renames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", os.rename)
        real(self)


def test_a_join_that_was_cut_short_is_finished(whole, part):
    single = part / "data/chunk-000/file-001.parquet"
    table = Dataset(whole).table
    import pyarrow.parquet as pq

    pq.write_table(table.slice(crash.LENGTH, crash.LENGTH), single)
    assert Dataset(part).rows(3)["index"][0] == 3 * crash.LENGTH
    assert run(part) == 0
    assert crash.differences(whole, part) == []


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda root: video(root, 2).unlink(), 2),
        (lambda root: video(root, 1, "cam_wrist").write_bytes(b"not a video"), 1),
        (lambda root: os.truncate(video(root, 0), 1000), 0),
        (
            lambda root: (
                shutil.copy(video(root, 0), root / "x.mp4") and shutil.rmtree(root / "data")
            ),
            0,
        ),
    ],
    ids=["missing video", "broken video", "cut video", "no data"],
)
def test_damage_is_cut_back_to_the_longest_valid_prefix(apart, tmp_path, damage, kept, capsys):
    part = shutil.copytree(apart, tmp_path / "part")
    damage(part)
    (part / "x.mp4").unlink(missing_ok=True)
    assert run(part, "--video-files", "per-episode") == 0
    assert f"resume: dropped episodes {kept} to 3, because" in capsys.readouterr().err
    assert crash.differences(apart, part) == []


def test_an_unfinished_episode_is_dropped_and_reported(part, whole, apart, capsys):
    (part / ".unfinished").mkdir()
    (part / ".unfinished/observation.images.cam_high.mp4").write_bytes(b"half a video")
    shutil.copy(video(apart, 0), next(part.glob("videos/*/chunk-000")) / "file-004.mp4")
    assert run(part) == 0
    assert "dropped the unfinished episode" in capsys.readouterr().err
    assert crash.differences(whole, part) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "4"], "seed was 3, is now 4"),
        (["--noise-rad", "0.01"], "noise_rad was 0.05, is now 0.01"),
        (["--resolution", "128"], "config.render.resolution was 64, is now 128"),
        (["--no-cameras"], "record_cameras was True, is now False"),
        (["--video-files", "per-episode"], "has packed video files, not per-episode"),
    ],
)
def test_another_configuration_is_refused_and_changes_nothing(part, options, message, capsys):
    before = {p: p.read_bytes() for p in part.rglob("*") if p.is_file()}
    assert run(part, *options, episodes=9) == 1
    assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in part.rglob("*") if p.is_file()} == before


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert run(tmp_path) == 1
    assert "is no dataset of ours" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_foreign_dataset_is_refused(part, capsys):
    (part / "meta/collection.json").unlink()
    assert run(part) == 1
    assert "was not recorded by this project" in capsys.readouterr().err


def test_other_versions_are_a_warning(part):
    stored = json.loads((part / "meta/collection.json").read_text())
    stored["versions"]["numpy"] = "1.0"
    (part / "meta/collection.json").write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match="versions.numpy was '1.0', is now"):
        assert run(part) == 0


def test_two_runs_into_one_directory(part, capsys):
    handle = lock(part)
    assert run(part) == 1
    assert "another run is writing into" in capsys.readouterr().err
    os.close(handle)


def test_a_failing_encoder_leaves_the_finished_episodes(whole, tmp_path, monkeypatch, capsys):
    root, real, begun = tmp_path / "part", VideoEncoder._encode, []

    def failing(self):
        begun.append(self)
        if len(begun) > 4:
            raise OSError(errno.EIO, "the encoder broke")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(VideoEncoder, "_encode", failing)
        assert run(root) == 1
    assert "encoding observation.images.cam_high.mp4 failed" in capsys.readouterr().err
    assert Dataset(root).num_episodes == 2
    assert run(root) == 0
    assert crash.differences(whole, root) == []


def test_a_video_that_lacks_an_image_is_not_committed(tmp_path, monkeypatch):
    real = VideoEncoder.add
    dropped = []

    def dropping(self, image):
        if len(dropped) == 7:
            dropped.append(image)
            return
        dropped.append(image)
        real(self, image)

    monkeypatch.setattr(VideoEncoder, "add", dropping)
    assert run(tmp_path / "part", episodes=1) == 1
    assert Dataset(tmp_path / "part").num_episodes == 0


def test_a_full_disk_leaves_the_finished_episodes(whole, tmp_path, capsys):
    """On a real small file system."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        assert run(mount / "part", episodes=40) == 1
        assert "No space left on device" in capsys.readouterr().err
        kept = Dataset(mount / "part").num_episodes
        assert 1 <= kept < 40
        subprocess.run(["mount", "-o", "remount,size=100m", str(mount)], check=True)
        assert run(mount / "part", episodes=kept + 1) == 0
        assert run(tmp_path / "whole", episodes=kept + 1) == 0
        assert crash.differences(tmp_path / "whole", mount / "part") == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_commit_that_cannot_be_completed_renames_nothing(tmp_path):
    commit = Commit(tmp_path)
    commit.add_bytes("meta/one", b"1")
    with pytest.raises(FileNotFoundError):
        commit.add_file("meta/two", tmp_path / "missing")
    assert not (tmp_path / "meta").exists()


LACKING = ("ENOSYS", "EOPNOTSUPP", "ENOLCK", "EINVAL")


def _fail(name):
    number = getattr(errno, name)
    raise OSError(number, os.strerror(number))


@pytest.fixture
def warned(caplog, monkeypatch):
    """Return a function for the warnings so far; they are as if none had been given before."""
    monkeypatch.setattr(logging.getLogger("pp_recorder"), "propagate", True)
    commit_module._warn_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", LACKING)
def test_without_locks_a_run_goes_on_and_warns_once(tmp_path, monkeypatch, warned, name):
    monkeypatch.setattr(fcntl, "flock", lambda *_: _fail(name))
    for root in (tmp_path / "one", tmp_path / "two"):
        root.mkdir()
        unlock(root, lock(root))
        assert not (root / LOCK).exists()
    assert [text.partition(",")[0] for text in warned()] == ["this file system has no locks"]


def test_a_lock_that_breaks_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: _fail("EIO"))
    with pytest.raises(OSError, match="Input/output error") as failed:
        lock(tmp_path)
    assert not isinstance(failed.value, FileExistsError)


def test_a_lock_has_one_owner_at_a_time(tmp_path):
    """Each owner removes the file that others have opened and are about to lock."""
    owners, times, overlaps = [], [], []

    def work():
        for _ in range(1500):
            try:
                handle = lock(tmp_path)
            except FileExistsError:
                continue
            owners.append(handle)
            overlaps.extend(owners[1:])
            times.append(time.sleep(0))  # let others try
            owners.remove(handle)
            unlock(tmp_path, handle)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) > 100
    assert overlaps == []
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_another_run_has_created_anew_is_not_removed(tmp_path):
    first = lock(tmp_path)
    (tmp_path / LOCK).unlink()  # somebody has deleted the folder's contents
    second = lock(tmp_path)
    unlock(tmp_path, first)
    with pytest.raises(FileExistsError, match="another run"):
        lock(tmp_path)
    unlock(tmp_path, second)
    assert not (tmp_path / LOCK).exists()


def test_a_lock_is_no_link(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=LOCK):
        lock(tmp_path / "set")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", LACKING)
@pytest.mark.parametrize("kind", [stat.S_ISDIR, stat.S_ISREG])
def test_without_flushing_a_commit_is_made_and_warns_once(
    tmp_path, monkeypatch, warned, name, kind
):
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: _fail(name) if kind(os.fstat(fd).st_mode) else real(fd)
    )
    for k in range(2):
        commit = Commit(tmp_path)
        commit.add_bytes(f"meta/{k}", b"1")
        commit.publish()
    assert sorted(p.name for p in (tmp_path / "meta").iterdir()) == ["0", "1"]
    assert [text[:31] for text in warned()] == ["this file system does not flush"]


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "fsync", lambda fd: _fail(name))
    with pytest.raises(OSError, match=re.escape(os.strerror(getattr(errno, name)))):
        Commit(tmp_path).add_bytes("meta/one", b"1")
    assert not (tmp_path / "meta").exists()
