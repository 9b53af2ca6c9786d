"""Datasets that a stranger might put under the root: each a copy of a sound one, spoiled."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pyarrow as pa
import pyarrow.parquet as pq

import pp_env
from pp_bridge import run_collection_in_process
from pp_env.config import PickPlaceConfig, RenderConfig
from pp_recorder.dataset import keys
from tests.fakes import FakeSimulator

EPISODES = f"{keys.EPISODES_FOLDER}/chunk-000/file-000.parquet"
DATA = f"{keys.DATA_FOLDER}/chunk-000/file-000.parquet"

Spoil = Callable[[Path], None]


def make_sound(root: Path, **options: Any) -> None:
    """Record two episodes of 18 frames without physics."""
    env = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        disable_env_checker=True,
        simulator=FakeSimulator,
        obs_type="pixels_agent_pos",
        config=PickPlaceConfig(render=RenderConfig(resolution=32)),
        terminate_on_success=False,
    )
    try:
        run_collection_in_process(env, 2, root, steps_per_segment=2, keep="all", **options)
    finally:
        env.close()


def make_all(sound: Path, folder: Path) -> list[str]:
    """Make every spoiled dataset in a folder; return their names."""
    names = []
    for title, spoil in {**_infos(), **_FILES}.items():
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-")
        shutil.copytree(sound, folder / name)
        spoil(folder / name)
        names.append(name)
    return names


def _infos() -> dict[str, Spoil]:
    """Return what spoils `info.json`, which is text here, as JSON has no 1e400."""
    numbers = [
        *("1000000000", "1e400", "-1e400", "NaN", "true", "2.0", '"2"', "-1", "null", "[]", "{}"),
        *("9223372036854775807", "1" + "0" * 400, "1" + "0" * 5000),
    ]
    values = {
        "total_episodes": numbers,
        "total_frames": numbers,
        "fps": [*numbers, "0", "1e-300"],
        "video_path": [
            '"{video_key:>4000000000}"',
            '"{video_key!r:>4000000000}"',
            '"{file_index:04000000000d}"',
            '"{file_index:{chunk_index}}"',
            '"{video_key.__class__.__mro__}"',
            '"../../../../../../etc/passwd"',
            '"/etc/passwd"',
            '"{0}"',
            '"{"',
            '"a\\u0000b"',
            json.dumps("x" * 100_000),
            "7",
        ],
        "features": ["[]", "7", '{"observation.images.\\ud800": {"dtype": "video", "shape": [1]}}'],
        "codebase_version": ['"v2.1"', "[" * 500 + "]" * 500, '"v' + "9" * 5000 + '.0"'],
    }
    spoils: dict[str, Spoil] = {}
    for key, texts in values.items():
        for number, text in enumerate(texts):
            spoils[f"{key}-{number}-{text[:20]}"] = _with_value(key, text)
    for name, content in {
        "info nested": b"[" * 100_000,
        "info nested and closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "info of a list": b"[1, 2]",
        "info empty": b"",
        "info of bytes": b"\x00\xff\xfe" * 100,
        "info cut": b'{"total_episodes": 2, "total_',
    }.items():
        spoils[name] = _with_content(keys.INFO_PATH, content)
    return spoils


def _with_value(key: str, text: str) -> Spoil:
    def spoil(root: Path) -> None:
        info = json.loads((root / keys.INFO_PATH).read_text())
        content = json.dumps({**info, key: "PLACE"}).replace('"PLACE"', text)
        (root / keys.INFO_PATH).write_text(content)

    return spoil


def _with_content(name: str, content: bytes) -> Spoil:
    return lambda root: _replace(root / name).write_bytes(content) and None


def _with_column(column: str, values: pa.Array, name: str = EPISODES) -> Spoil:
    def spoil(root: Path) -> None:
        table = pq.ParquetFile(root / name).read()
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, column, values), root / name)

    return spoil


def _with_rows_without_end(root: Path) -> None:
    table = pq.ParquetFile(root / EPISODES).read()
    rows = pa.table({name: pa.nulls(2_000_000, pa.int8()) for name in table.column_names[:3]})
    pq.write_table(rows, root / EPISODES)


def _with_texts_without_end(root: Path) -> None:
    table = pq.ParquetFile(root / EPISODES).read()
    texts = pa.array([[""] * 2_000_000, [""]], pa.list_(pa.string()))
    at = table.column_names.index(keys.TASKS)
    pq.write_table(table.set_column(at, keys.TASKS, texts), root / EPISODES)


def _replace(path: Path) -> Path:
    """Remove a file or folder, if it is there, and return its path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def _first_video(root: Path) -> Path:
    return min((root / keys.VIDEOS_FOLDER).rglob("*.mp4"))


def _sparse(path: Path) -> None:
    _replace(path)
    with path.open("wb") as file:
        file.truncate(100 * 2**30)


_TIMES = keys.video_column(f"{keys.IMAGE_PREFIX}cam_high", "from_timestamp")
_FILES: dict[str, Spoil] = {
    "info is a pipe": lambda root: os.mkfifo(_replace(root / keys.INFO_PATH)),
    "info is a folder": lambda root: _replace(root / keys.INFO_PATH).mkdir(),
    "info has no end": lambda root: _replace(root / keys.INFO_PATH).symlink_to("/dev/zero"),
    "info is a circle": lambda root: _replace(root / keys.INFO_PATH).symlink_to("info.json"),
    "info is sparse": lambda root: _sparse(root / keys.INFO_PATH),
    "episodes are a pipe": lambda root: os.mkfifo(_replace(root / EPISODES)),
    "episodes are a folder": lambda root: _replace(root / EPISODES).mkdir(),
    "episodes are missing": lambda root: _replace(root / keys.EPISODES_FOLDER) and None,
    "episodes are cut": lambda root: os.truncate(root / EPISODES, 1000),
    "episodes are empty": lambda root: os.truncate(root / EPISODES, 0),
    "episodes are noise": _with_content(EPISODES, b"PAR1" + bytes(range(256)) * 9 + b"PAR1"),
    "episodes have no end": _with_rows_without_end,
    "a task list has no end": _with_texts_without_end,
    "lengths are texts": _with_column(keys.LENGTH, pa.array(["18", "18"])),
    "lengths are negative": _with_column(keys.LENGTH, pa.array([-18, 18])),
    "lengths are vast": _with_column(keys.LENGTH, pa.array([2**62, 18])),
    "times are NaN": _with_column(_TIMES, pa.array([float("nan"), 0.0])),
    "times are vast": _with_column(_TIMES, pa.array([1e308, 1e308])),
    "times are before": _with_column(_TIMES, pa.array([-1e308, 0.0])),
    "tasks are empty": _with_column(keys.TASKS, pa.array([[], []], pa.list_(pa.string()))),
    "data are cut": lambda root: os.truncate(root / DATA, 100),
    "tasks are noise": _with_content(keys.TASKS_PATH, b"PAR1 noise PAR1"),
    "video is a pipe": lambda root: os.mkfifo(_replace(_first_video(root))),
    "video is noise": lambda root: _first_video(root).write_bytes(b"noise" * 1000) and None,
    "video is elsewhere": lambda root: _replace(_first_video(root)).symlink_to("/etc/passwd"),
    "video is a playlist": lambda root: (
        _first_video(root).write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n") and None
    ),
}  # fmt: skip
