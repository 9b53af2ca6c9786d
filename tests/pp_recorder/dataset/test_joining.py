"""Joining videos in several processes gives what joining them in one gives, whatever happens."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest

from pp_collect import start
from pp_env import processors
from pp_recorder.dataset import merge, packing
from pp_recorder.dataset.reader import Dataset
from tests import ROOT, workers
from tests.pp_recorder.dataset.test_packing import images, moments, same_images
from tests.pp_recorder.dataset.tiny import EYES, files, record

INTERRUPTED = """
import sys
from pp_recorder.dataset import packing
from tests import workers
packing._CLIPS_PER_PROCESS = 1
packing.Joiner = workers.HangsJoining
sys.exit(packing.main([sys.argv[1]], processes=2))
"""


@pytest.fixture
def several(monkeypatch):
    """Let several processes join few videos, too."""
    monkeypatch.setattr(packing, "_CLIPS_PER_PROCESS", 1)
    monkeypatch.setattr(packing, "_CLIPS_PER_JOB", 2)


@pytest.fixture
def started(monkeypatch):
    """Return the list of the numbers of processes that were asked for."""
    numbers = []
    real = packing.run_all

    def counted(factory, jobs, processes):
        numbers.append(processes)
        return real(factory, jobs, processes)

    monkeypatch.setattr(packing, "run_all", counted)
    return numbers


def test_the_bytes_do_not_depend_on_the_number_of_processes(whole, loose, several, started):
    assert packing.main([str(loose)], processes=3) == 0
    assert started == [3]
    assert files(loose) == files(whole)


def test_joined_files_go_on_in_several_processes(whole, tmp_path, several, started):
    part = record(tmp_path / "part", 5)
    record(part, 7, finalize=False)
    packing.convert(part, "packed", processes=2)
    assert started == [2]
    assert files(part) == files(whole)
    packing.convert(part, "packed", processes=2)
    assert started == [2], "nothing was left to do"


def test_no_process_is_started_without_a_file_to_write(whole, loose, several, started):
    packing.convert(loose, "packed", processes=100)
    assert started[0] <= len(list(whole.rglob("*.mp4"))) + len(EYES)
    assert files(loose) == files(whole)


def test_few_videos_are_joined_in_this_process(whole, loose, started):
    packing.convert(loose, "packed", processes=8)
    assert started == []
    assert files(loose) == files(whole)


def test_little_room_is_left_to_one_process(whole, loose, several, started, monkeypatch):
    usage = shutil.disk_usage(loose)._replace(free=3 * 9_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    packing.convert(loose, "packed", processes=8)
    assert started == []
    assert files(loose) == files(whole)


def test_few_files_wait_to_be_moved(whole, loose, several, monkeypatch):
    waiting = []
    real = packing.CameraFiles.move

    def move(self, places, staged):
        waiting.append(len(list(staged.parent.glob("packed_*"))))
        real(self, places, staged)

    monkeypatch.setattr(packing, "_SPARE", -1)
    monkeypatch.setattr(packing.CameraFiles, "move", move)
    packing.convert(loose, "packed", processes=2)
    assert len(waiting) > 2
    assert max(waiting) == 1
    assert files(loose) == files(whole)


def test_killed_at_any_moment(whole, loose, several, tmp_path, monkeypatch):
    expected, content = images(loose), files(whole)

    def pack(root):
        shutil.copytree(loose, root)
        packing.pack_videos(root, EYES, processes=2)

    for moment, root in moments(pack, tmp_path, monkeypatch, every=7):
        assert same_images(images(root), expected), moment
        packing.convert(root, "packed", processes=moment % 2 + 1)
        assert files(root) == content, moment
    assert moment > 10


def test_a_process_that_is_killed_is_replaced(whole, loose, several, monkeypatch, caplog):
    monkeypatch.setattr(packing, "Joiner", workers.DiesJoining)
    assert packing.main([str(loose)], processes=2) == 0
    assert (loose / "died").exists()
    (loose / "died").unlink()
    assert "the process of joining " in caplog.text
    assert "died (SIGKILL); it is tried again" in caplog.text
    assert files(loose) == files(whole)


@pytest.mark.parametrize(
    ("joiner", "message"),
    [
        (workers.DiesAlways, "ended its process twice (SIGKILL); if memory is short, try again"),
        (workers.DiesAtOnce, "a process died before it could begin (SIGKILL)"),
    ],
)
def test_processes_that_are_killed_leave_a_dataset(
    whole, loose, several, monkeypatch, capsys, joiner, message
):
    expected = images(loose)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "Joiner", joiner)
        assert packing.main([str(loose)], processes=2) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert multiprocessing.active_children() == []
    (loose / "died").unlink(missing_ok=True)
    assert not (loose / ".unfinished").exists()
    assert same_images(images(loose), expected)
    assert packing.main([str(loose)], processes=2) == 0
    assert files(loose) == files(whole)


def test_written_files_are_removed_where_nobody_else_does_it(small, loose, several, monkeypatch):
    monkeypatch.setattr(packing, "Joiner", workers.DiesAlways)
    with pytest.raises(packing.DatasetError, match="ended its process twice"):
        packing.pack_videos(loose, EYES, processes=2)
    assert list((loose / ".unfinished").iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: b"no video", lambda data: data[: len(data) // 2]])
@pytest.mark.parametrize("episode", [0, 6])
def test_an_unreadable_video_is_named_as_by_one_process(
    small, loose, several, tmp_path, capsys, damage, episode
):
    path = loose / f"videos/{EYES[0]}/chunk-000/file-{episode:03d}.mp4"
    path.write_bytes(damage(path.read_bytes()))
    alone = shutil.copytree(loose, tmp_path / "alone")
    errors = []
    for number, root in ((1, alone), (2, loose)):
        assert packing.main([str(root)], processes=number) == 2
        errors.append(capsys.readouterr().err.replace(str(root), "ROOT"))
        assert Dataset(root).num_episodes == 7
        assert not (root / ".unfinished").exists()
    assert errors[0] == errors[1]
    assert errors[0].startswith(f"error: ROOT/videos/{EYES[0]}/chunk-000/file-{episode:03d}.mp4")
    assert errors[0].count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_ends_all_processes(whole, loose, number):
    expected = images(loose)
    command = [sys.executable, "-c", INTERRUPTED, str(loose)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as process:
        assert process.stdout.readline() == "joining\n"
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=60)  # until no process has the pipes any more
    if number == signal.SIGINT:
        safe = f"{loose} still has all its episodes; the same command goes on"
        assert (process.returncode, error) == (130, f"interrupted: {safe}\n")
        assert not (loose / ".unfinished").exists()
    else:
        assert (process.returncode, error) == (-signal.SIGTERM, "")
    assert same_images(images(loose), expected)
    assert packing.main([str(loose)]) == 0
    assert files(loose) == files(whole)


@pytest.mark.parametrize("name", ["pack", "merge"])
def test_commands_use_every_processor(monkeypatch, name):
    given = []
    monkeypatch.setattr(processors, "usable_processors", lambda: 5)
    module = {"pack": packing, "merge": merge}[name]
    monkeypatch.setattr(module, "main", lambda processes: given.append(processes) or 0)
    monkeypatch.setattr(start, "leave_on_interrupt", lambda: None)
    assert getattr(start, name)() == 0
    assert given == [5]


def test_processes_that_join_import_little():
    code = (
        "import sys, pp_recorder.dataset.joining\n"
        "print(sorted({'pyarrow', 'mujoco', 'gymnasium', 'tqdm'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
