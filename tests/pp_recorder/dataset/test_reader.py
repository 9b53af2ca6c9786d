import json

import pyarrow as pa
import pytest

from pp_recorder.dataset.reader import Dataset, DatasetError, to_array

INFO = {
    "codebase_version": "v3.0", "features": {}, "fps": 30, "total_episodes": 0, "total_frames": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no LeRobot dataset: it has no meta/info.json"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object, got a list"),
        (json.dumps({**INFO, "codebase_version": "v2.1"}), "has format v2.1.*convert it with"),
        (json.dumps({**INFO, "codebase_version": "v4.0"}), "has format v4.0.*a newer release"),
        (json.dumps({**INFO, "features": []}), r"info.json: features is \[\], expected a dict"),
        (json.dumps({**INFO, "total_episodes": 1}), "no parquet file in meta/episodes"),
    ],
)
def test_an_unreadable_dataset_is_explained(tmp_path, content, message):
    (tmp_path / "meta").mkdir()
    if content is not None:
        (tmp_path / "meta/info.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        Dataset(tmp_path)


def test_a_missing_directory(tmp_path):
    with pytest.raises(DatasetError, match="is not a directory"):
        Dataset(tmp_path / "nowhere")


def test_columns_become_arrays():
    assert to_array(pa.chunked_array([[1.0, 2.0], [3.0]])).shape == (3, 1)
    assert to_array(pa.chunked_array([[[1, 2], [3, 4]], [[5, 6]]])).tolist() == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]
    assert to_array(pa.chunked_array([pa.array([], pa.float32())])).shape == (0, 1)


@pytest.mark.parametrize("rows", [[[1, 2], [3]], [[1, 2], None], [1.0, None], [[1, None], [2, 3]]])
def test_columns_with_gaps_are_refused(rows):
    with pytest.raises(DatasetError, match="a column must have"):
        to_array(pa.chunked_array([rows]))
