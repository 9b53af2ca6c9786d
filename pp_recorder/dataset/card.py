"""The dataset card: a README.md that tells the Hub and `load_dataset` where the rows are."""

from typing import Any

from pp_recorder.dataset import keys
from pp_recorder.dataset.reader import Dataset

_HEADER = f"""---
license: apache-2.0
task_categories:
- robotics
tags:
- LeRobot
configs:
- config_name: default
  data_files: {keys.DATA_FOLDER}/*/*.parquet
---
"""


def make_local_card(info: dict[str, Any]) -> str:
    """Return the README.md of a dataset in a folder; it stays the same while the dataset grows.

    Args:
        info: The contents of `info.json`.
    """
    opening = 'LeRobotDataset("local/dataset", root="PATH")'
    return f"""{_HEADER}
# Demonstrations of a robot

Robot: {info.get("robot_type")}, {info["fps"]} Hz. LeRobot format {keys.FORMAT_VERSION};
`{keys.INFO_PATH}` counts episodes and frames.

{_usage(opening)}
{_features(info)}
"""


def make_card(dataset: Dataset, repo_id: str) -> str:
    """Return the dataset's README.md for the Hub."""
    tasks = sorted({task for entry in dataset.episodes for task in entry[keys.TASKS]})
    successes = [entry.get(keys.EPISODE_SUCCESS) for entry in dataset.episodes]
    outcome = "" if None in successes else f", {sum(map(bool, successes))} of them successful"
    opening = f'LeRobotDataset("{repo_id}")'
    robot = dataset.info.get("robot_type")
    return f"""{_HEADER}
# {repo_id.rpartition("/")[2]}

{dataset.num_episodes} episodes{outcome}, {dataset.num_frames} frames at {dataset.fps} Hz.
Robot: {robot}. Task: {", ".join(tasks)}. LeRobot format {keys.FORMAT_VERSION}.

{_usage(opening)}
{_features(dataset.info)}
"""


def is_edited(dataset: Dataset) -> bool:
    """Return True if the dataset's folder has a README.md that somebody has written."""
    path = dataset.root / keys.CARD_PATH
    if not path.is_file():
        return False
    try:
        return path.read_text(encoding="utf-8") != make_local_card(dataset.info)
    except UnicodeDecodeError:
        return True


def _usage(opening: str) -> str:
    return f"""```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = {opening}
```
"""


def _features(info: dict[str, Any]) -> str:
    rows = [
        f"| `{key}` | {f['dtype']} | {' x '.join(map(str, f['shape']))} |"
        for key, f in info["features"].items()
    ]
    return f"""| feature | type | shape |
|---|---|---|
{chr(10).join(rows)}

`{keys.COLLECTION_PATH}`, where there is one, tells how it was collected: configuration, seed,
versions, camera intrinsics and poses."""
