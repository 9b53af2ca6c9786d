"""Tiny datasets, as most tests of videos begin with."""

import shutil

import pytest

from pp_recorder.dataset import keys
from tests.pp_recorder.dataset.tiny import LENGTHS, record

MIB = 2**20


@pytest.fixture
def small(monkeypatch):
    """Let a file have two or three episodes of the left eye, and more of the right one."""
    monkeypatch.setattr(keys, "VIDEO_FILE_SIZE", 9_000 / MIB)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return a function that copies a dataset of all episodes; the first time, it records it."""
    folder = tmp_path_factory.mktemp("recorded")

    def copy(root, **options):
        name = " ".join(map(str, [keys.VIDEO_FILE_SIZE, *options.values()]))
        if not (folder / name).exists():
            record(folder / name, len(LENGTHS), **options)
        return shutil.copytree(folder / name, root)

    return copy


@pytest.fixture
def whole(tmp_path, small, recorded):
    return recorded(tmp_path / "whole")


@pytest.fixture
def loose(tmp_path, recorded):
    """Return a dataset that is not packed yet."""
    return recorded(tmp_path / "loose", finalize=False)
