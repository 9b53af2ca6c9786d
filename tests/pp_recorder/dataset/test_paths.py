from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pp_recorder.checks.cli import main as inspect_main
from pp_recorder.dataset.commit import Commit
from pp_recorder.dataset.reader import Dataset, decode
from pp_recorder.dataset.remux import read_index
from pp_recorder.dataset.video import VideoEncoder
from tests.pp_recorder.checks.foreign import write_foreign_dataset

NAMES = [
    *("run:1", "2026-10-01T12:30", "file:x", "s3:x", "pipe:1", "concat:a|b", "http:"),
    *("a%03d", "a%20b", "%zz", "-x", "--output", "a b", " ", "münchen 東京", "a?b#c", "[x]*"),
    *("a'b\"c", "~x", "a\\b", "$HOME", "a\nb"),
]


@pytest.fixture(params=NAMES)
def folder(request, tmp_path, monkeypatch):
    """Return the relative path of a folder with an awkward name."""
    monkeypatch.chdir(tmp_path)
    Path(request.param).mkdir()
    return Path(request.param)


def test_a_video_is_written_and_read(folder):
    encoder = VideoEncoder(folder / "v.mp4", "h264", 30)
    for _ in range(3):
        encoder.add(np.zeros((32, 32, 3), np.uint8))
    encoder.finish(3)
    assert len(list(decode(folder / "v.mp4"))) == 3
    assert [p.name for p in folder.iterdir()] == ["v.mp4"]


def test_a_table_is_written_and_read(folder):
    commit = Commit(folder)
    commit.add_table("data/chunk-000/file-000.parquet", pa.table({"index": [0, 1]}))
    commit.publish()
    assert (folder / "data/chunk-000/file-000.parquet").is_file()


def test_a_dataset_is_read(folder):
    write_foreign_dataset(folder.absolute() / "set")
    dataset = Dataset(folder / "set")
    assert dataset.rows(1)["action"].shape == (15, 2)
    assert sum(1 for _ in dataset.frames(1, "observation.image")) == 15
    assert len(read_index(dataset.video_path(0, "observation.image"), dataset.fps).frames) == 47
    assert inspect_main([f"./{folder}/set"]) == 0
