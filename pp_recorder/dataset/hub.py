"""Upload a dataset to the Hugging Face Hub, with a card. Needs the extra [hub].

Example: pp-push datasets/pick_place me/franka-pick-place
"""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro
from typing_extensions import Doc

from pp_recorder.command_line import DatasetFolder, Options, parse
from pp_recorder.dataset import keys
from pp_recorder.dataset.commit import LOCK, UNFINISHED
from pp_recorder.dataset.reader import Dataset, DatasetError

# The aliases are hard links to the same videos; a copy of each would double the upload.
IGNORED = [f"{keys.VIDEOS_FOLDER}/**/{keys.VIDEO_ALIAS_PATTERN}", LOCK, f"{UNFINISHED}/**"]


def push(root: Path, repo_id: str, private: bool = False, api: Any = None) -> str:
    """Upload a dataset and return its address.

    Set a tag with the name of its format, too, by which LeRobot finds a dataset on the Hub.

    Args:
        root: The dataset's directory.
        repo_id: "user/name".
        private: Hide it from others.
        api: A `huggingface_hub.HfApi`; default: one with the user's stored token.

    Raises:
        DatasetError: The directory is not a dataset, or it holds no episode.
        ImportError: huggingface_hub is not installed.
    """
    dataset = Dataset(root)
    if dataset.num_episodes == 0:
        raise DatasetError(f"{root} holds no episode; nothing was uploaded")
    card = make_card(dataset, repo_id)
    if api is None:
        api = _make_api()
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id, repo_type="dataset", folder_path=str(root), ignore_patterns=IGNORED
    )
    api.upload_file(
        repo_id=repo_id, repo_type="dataset", path_or_fileobj=card.encode(),
        path_in_repo="README.md",
    )  # fmt: skip
    api.create_tag(repo_id, tag=keys.FORMAT_VERSION, repo_type="dataset", exist_ok=True)
    return f"https://huggingface.co/datasets/{repo_id}"


def make_card(dataset: Dataset, repo_id: str) -> str:
    """Return the dataset's README for the Hub, in Markdown with its YAML header."""
    tasks = sorted({task for entry in dataset.episodes for task in entry[keys.TASKS]})
    rows = [
        f"| `{key}` | {f['dtype']} | {' x '.join(map(str, f['shape']))} |"
        for key, f in dataset.features.items()
    ]
    successes = [entry.get(keys.EPISODE_SUCCESS) for entry in dataset.episodes]
    outcome = "" if None in successes else f", {sum(map(bool, successes))} of them successful"
    return f"""---
license: apache-2.0
task_categories:
- robotics
tags:
- LeRobot
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# {repo_id.rpartition("/")[2]}

{dataset.num_episodes} episodes{outcome}, {dataset.num_frames} frames at {dataset.fps} Hz.
Robot: {dataset.info["robot_type"]}. Task: {", ".join(tasks)}. LeRobot format {keys.FORMAT_VERSION}.

```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("{repo_id}")
```

| feature | type | shape |
|---|---|---|
{chr(10).join(rows)}

How it was collected (configuration, seed, versions, camera intrinsics and poses) is in
`{keys.COLLECTION_PATH}`.
"""


def require_library() -> None:
    """Raise an error if a dataset cannot be uploaded.

    Raises:
        ImportError: huggingface_hub is not installed.
    """
    if find_spec("huggingface_hub") is None:
        raise ImportError(
            "uploading needs huggingface_hub; try \"pip install 'franka-pick-place[hub]'\""
        )


def _make_api() -> Any:
    require_library()
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]

    return HfApi()


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """The options of `pp-push`."""

    dataset: Annotated[DatasetFolder, Doc("the dataset")]
    repo_id: Annotated[
        str, Doc("where it goes"), tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")
    ]
    private: Annotated[bool, Doc("hide it from others")] = False


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse(
        PushOptions,
        argv,
        prog="pp-push",
        description="Upload a dataset to the Hugging Face Hub.",
        example="pp-push datasets/pick_place me/franka-pick-place",
    )
    try:
        print(push(options.dataset, options.repo_id, options.private))
    except (DatasetError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
