"""Datasets for the tests of the checks."""

import shutil

import pytest

import collect
from tests.pp_recorder.checks.foreign import write_foreign_dataset


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "healthy"
    options = ["--num-episodes", "2", "--steps-per-segment", "20", "--resolution", "64"]
    options += ["--preset", "fast", "--seed", "5", "--workers", "1"]
    options += ["--video-files", "per-episode"]
    assert collect.main([*options, "--output", str(root)]) == 0
    return root


@pytest.fixture
def dataset(healthy, tmp_path):
    return shutil.copytree(healthy, tmp_path / "set")


@pytest.fixture
def foreign(tmp_path):
    root = tmp_path / "foreign"
    write_foreign_dataset(root)
    return root
