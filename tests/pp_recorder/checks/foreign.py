"""A dataset unlike those of this project."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import stats
from tests.pp_recorder.checks.defects import DATA, EPISODES, write_video

FOREIGN_LENGTHS = (12, 15, 20)
VIDEO = "videos/observation.image/chunk-000/file-000.mp4"
FOREIGN_FPS = 12


def foreign_columns(rng):
    total = sum(FOREIGN_LENGTHS)
    frames = np.concatenate([np.arange(n) for n in FOREIGN_LENGTHS])
    return {
        "observation.state": rng.normal(size=(total, 5)).astype(np.float32),
        "action": rng.normal(size=(total, 2)).astype(np.float64),
        "force": rng.normal(size=total).astype(np.float32),
        "timestamp": (frames / FOREIGN_FPS).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.repeat(np.arange(3), FOREIGN_LENGTHS),
        "index": np.arange(total),
        "task_index": np.repeat([0, 1, 0], FOREIGN_LENGTHS),
    }


def foreign_image(k):
    y, x = np.mgrid[0:48, 0:80]
    channels = [128 + 90 * np.sin((x + 2 * k) / 9), 2.5 * x, 120 + 100 * np.cos((y + k) / 7)]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def foreign_feature(values):
    size = values.shape[1] if values.ndim == 2 else 1
    names = {"motors": [f"m{k}" for k in range(size)]} if size == 5 else None
    return {"dtype": str(values.dtype), "shape": [size], "names": names}


def foreign_stats(columns, images):
    result = {k: stats.of_rows(v.reshape(len(v), -1)) for k, v in columns.items()}
    image_stats = stats.ImageStats()
    for image in images:
        image_stats.add(image)
    result["observation.image"] = image_stats.result()
    return {k: {n: v.tolist() for n, v in own.items()} for k, own in result.items()}


def write_foreign_dataset(root):
    """Write a dataset by another program.

    It has no names or other ones, another fps, an image that is not square, and one video file for
    all episodes.
    """
    columns = foreign_columns(np.random.default_rng(0))
    images = [foreign_image(k) for k in range(sum(FOREIGN_LENGTHS))]
    for name in (DATA, EPISODES, VIDEO):
        (root / name).parent.mkdir(parents=True)
    write_video(root / VIDEO, images, FOREIGN_FPS)
    arrays = {k: pa.array(v.tolist() if v.ndim == 2 else v) for k, v in columns.items()}
    arrays["observation.state"] = arrays["observation.state"].cast(pa.list_(pa.float32()))
    pq.write_table(pa.table(arrays), root / DATA)
    pq.write_table(pa.Table.from_pylist(foreign_episodes(columns, images)), root / EPISODES)
    features = {k: foreign_feature(v) for k, v in columns.items()}
    features["observation.image"] = {
        "dtype": "video", "shape": [48, 80, 3], "names": ["height", "width", "channel"],
    }  # fmt: skip
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": 3,
        "total_frames": 47, "total_tasks": 2, "chunks_size": 1000, "fps": FOREIGN_FPS,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 500,
        "splits": {"train": "0:2", "test": "2:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text(json.dumps(foreign_stats(columns, images)))
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": ["push", "pull"]})
    tasks = tasks.replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})
    pq.write_table(tasks, root / "meta/tasks.parquet")


def foreign_episodes(columns, images):
    rows, at = [], 0
    for k, length in enumerate(FOREIGN_LENGTHS):
        end = at + length
        own = foreign_stats({key: v[at:end] for key, v in columns.items()}, images[at:end])
        rows.append(
            {
                "episode_index": k, "tasks": [("push", "pull", "push")[k]], "length": length,
                "dataset_from_index": at, "dataset_to_index": end,
                "data/chunk_index": 0, "data/file_index": 0,
                "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                "videos/observation.image/chunk_index": 0,
                "videos/observation.image/file_index": 0,
                "videos/observation.image/from_timestamp": at / FOREIGN_FPS,
                "videos/observation.image/to_timestamp": end / FOREIGN_FPS,
                **{f"stats/{key}/{n}": v for key, part in own.items() for n, v in part.items()},
            }
        )  # fmt: skip
        at = end
    return rows
