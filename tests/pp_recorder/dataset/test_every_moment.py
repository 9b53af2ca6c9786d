"""A dataset is sound for `pp-inspect` at every moment: while a run writes, after it was killed."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from pp_recorder.checks import DatasetView, inspect_dataset, run_checks
from pp_recorder.dataset import keys, packing
from pp_recorder.dataset.reader import Dataset
from tests.pp_recorder.dataset.tiny import EYES, files, record

# The tiny pictures of the left eye are finer than what its codec keeps.
EXPECTED = {"image statistics left"}


def errors(results):
    others = (r for r in results if r.name not in EXPECTED)
    return [f.message for r in others for f in r.findings if f.severity == "error"]


class Killed(BaseException):
    pass


class Looks:
    """Looks at a dataset after changes of names in it.

    Attributes:
        changes: How many there were.
        unsound: What was wrong after them.
    """

    def __init__(self, root, patch, every=1, kill_at=None):
        self.changes, self.unsound, self.looks = 0, [], 0
        self._root, self._every, self._kill_at = root, every, kill_at
        for owner, name in ((os, "replace"), (os, "unlink"), (Path, "unlink")):
            patch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, real):
        def change(*args, **options):
            real(*args, **options)
            self.changes += 1
            if self.changes == self._kill_at:
                raise Killed
            if self._kill_at is None and self.changes % self._every == 0:
                self._look(str(args[-1]))

        return change

    def _look(self, changed):
        if (self._root / keys.INFO_PATH).exists():
            self.looks += 1
            if found := errors(run_checks(DatasetView(self._root))):
                self.unsound.append((self.changes, changed, found))


@pytest.fixture
def look(monkeypatch):
    """Return a function that looks at a dataset while an action changes it."""

    def watch(root, action, every=1):
        with monkeypatch.context() as patch:
            looks = Looks(root, patch, every)
            action()
        assert looks.unsound == []
        assert looks.looks
        return looks.changes

    return watch


def test_while_episodes_are_recorded_joined_and_packed(tmp_path, small, look):
    look(tmp_path / "set", lambda: record(tmp_path / "set", 2))
    look(tmp_path / "set", lambda: record(tmp_path / "set", 4), every=2)


def test_while_chunks_are_joined(tmp_path, monkeypatch, look):
    monkeypatch.setattr(keys, "CHUNK_SIZE", 2)
    look(tmp_path / "set", lambda: record(tmp_path / "set", 3, finalize=False), every=2)


def test_while_videos_are_taken_apart_and_joined(tmp_path, small, look):
    root = record(tmp_path / "set", 4)
    look(root, lambda: packing.convert(root, "per-episode"), every=3)
    look(root, lambda: packing.convert(root, "packed"), every=3)


def test_while_several_processes_join(tmp_path, small, monkeypatch, look):
    monkeypatch.setattr(packing, "_CLIPS_PER_PROCESS", 1)
    root = record(tmp_path / "set", 7, finalize=False)
    look(root, lambda: packing.convert(root, "packed", processes=2), every=2)


def test_while_a_killed_run_is_repaired(tmp_path, monkeypatch, look):
    whole, begun = record(tmp_path / "whole", 4), record(tmp_path / "begun", 3, finalize=False)

    def kill(root, moment):
        with monkeypatch.context() as patch:
            Looks(root, patch, kill_at=moment)
            record(root, 4)

    moment = 0
    while True:
        moment += 4
        root = shutil.copytree(begun, tmp_path / str(moment))
        try:
            kill(root, moment)
            break
        except Killed:
            pass
        (root / ".lock").unlink(missing_ok=True)
        look(root, lambda root=root: record(root, 4, finalize=False), every=4)
        assert files(record(root, 4)) == files(whole), moment
    assert moment > 20


def test_while_damage_is_cut_off(tmp_path, monkeypatch):
    """It is unsound until `info.json` counts no more than what is whole."""
    root = record(tmp_path / "set", 3, finalize=False)
    (root / f"videos/{EYES[0]}/chunk-000/file-001.mp4").unlink()
    with monkeypatch.context() as patch:
        looks = Looks(root, patch)
        record(root, 1, finalize=False)
    assert {name for _, name, _ in looks.unsound} <= {str(root / "meta/stats.json")}
    assert Dataset(root).num_episodes == 1


def test_while_a_run_is_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "CHUNK_SIZE", 3)
    root = tmp_path / "set"
    record(root, 1, finalize=False)
    run = threading.Thread(target=record, args=(root, 7))
    run.start()
    found = []
    while run.is_alive():
        view, results = inspect_dataset(root)
        if not view.has_changed():  # at each of several looks: it is a very short run
            found += errors(results)
    run.join()
    assert found == []
    view, results = inspect_dataset(root)
    assert errors(results) == []
    assert view.num_episodes == 7
