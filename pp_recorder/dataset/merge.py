"""Joins several of our datasets into one, without encoding anything again.

Example: pp-merge datasets/part_0 datasets/part_1 --output datasets/whole
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from typing_extensions import Doc

from pp_recorder.command_line import Folder, OptionError, Options, parse
from pp_recorder.dataset import stats
from pp_recorder.dataset.commit import aside
from pp_recorder.dataset.episode import EncodedEpisode
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.schema import BOOKKEEPING, DatasetSchema, Feature
from pp_recorder.dataset.writer import LeRobotWriter, stored_stats

# What the parts of one dataset may differ in; and in what parts of one collection do not.
_MAY_DIFFER = (
    "seed", "first_attempt", "versions", "machine", "simulator_details", "task", "object",
)  # fmt: skip
_SAME_COLLECTION = ("seed", "task", "object")


def merge(sources: list[Path], output: Path) -> int:
    """Writes the episodes of all sources, in order, to a new dataset; returns how many.

    Episodes are renumbered and statistics folded as if one run had recorded them: parts of one
    collection (`--first-attempt`) give the dataset that the whole collection would have given.

    Raises:
        DatasetError: A source is not ours, or they do not fit together.
        FileExistsError: The output is in use or not empty.
    """
    datasets = [Dataset(source) for source in sources]
    stored = [_collection(dataset) for dataset in datasets]
    for dataset, collection in zip(datasets[1:], stored[1:], strict=True):
        _require_alike(datasets[0], stored[0], dataset, collection)
    first = datasets[0]
    recording = DatasetSchema(
        features=_own_features(first),
        row=_no_steps,
        fps=first.fps,
        task=_no_start,
        robot_type=first.info["robot_type"],
        collection=_joint_collection(datasets, stored),
        codec=stored[0]["codec"],
    )
    writer = LeRobotWriter(output, recording)
    try:
        for dataset in datasets:
            for k in range(dataset.num_episodes):
                _adopt(writer, dataset, k)
        writer.close()
    finally:
        writer.release()
    return writer.num_episodes


def _adopt(writer: LeRobotWriter, dataset: Dataset, episode: int) -> None:
    entry = dataset.episodes[episode]
    columns = {k: v for k, v in dataset.rows(episode).items() if k not in BOOKKEEPING}
    videos: dict[str, tuple[Path, stats.Stats]] = {}
    for camera in dataset.cameras:
        copy = aside(writer.root, f"{camera}.mp4")
        shutil.copyfile(dataset.video_path(episode, camera), copy)
        videos[camera] = (copy, stored_stats(entry, camera))
    extra = {key: value for key, value in entry.items() if key.startswith("episode/")}
    writer.add_episode(EncodedEpisode(columns, videos, entry["tasks"][0], extra))


def _collection(dataset: Dataset) -> dict[str, Any]:
    stored = dataset.collection
    if stored is None or "codec" not in stored:
        raise DatasetError(
            f"{dataset.root} was not recorded by this project (it has no meta/collection.json); "
            "lerobot's own merge joins foreign datasets"
        )
    return stored


def _require_alike(
    one: Dataset, stored: dict[str, Any], other: Dataset, collection: dict[str, Any]
) -> None:
    keys = sorted((stored.keys() | collection.keys()) - set(_MAY_DIFFER))
    differing = [key for key in keys if stored.get(key) != collection.get(key)]
    if one.features != other.features:
        differing.append("features")
    if differing:
        raise DatasetError(
            f"{one.root} and {other.root} differ in {', '.join(differing)}, so they are not parts "
            "of one dataset"
        )


def _joint_collection(datasets: list[Dataset], stored: list[dict[str, Any]]) -> dict[str, Any]:
    """The first one's, and where each part came from if they are not parts of one collection."""
    differing = [k for k in _SAME_COLLECTION if any(s.get(k) != stored[0].get(k) for s in stored)]
    if not differing:
        return {**stored[0], "first_attempt": min(s["first_attempt"] for s in stored)}
    parts = [
        {"episodes": dataset.num_episodes, **{key: s.get(key) for key in _MAY_DIFFER}}
        for dataset, s in zip(datasets, stored, strict=True)
    ]
    unknown = {key: None for key in differing if key != "seed"}
    return {**stored[0], **unknown, "parts": parts}


def _own_features(dataset: Dataset) -> dict[str, Feature]:
    return {
        key: Feature(f["dtype"], tuple(f["shape"]), tuple(f["names"]) if f["names"] else None)
        for key, f in dataset.features.items()
        if key not in BOOKKEEPING and not key.startswith("next.")
    }


def _no_steps(step: object) -> dict:
    raise NotImplementedError("a merge adopts whole episodes")


def _no_start(info: object) -> str:
    raise NotImplementedError("a merge adopts whole episodes")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """The options of `pp-merge`."""

    sources: Annotated[tuple[Folder, ...], Doc("datasets, in order"), tyro.conf.Positional]
    output: Annotated[Folder, Doc("absent or empty folder")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise OptionError("sources", "must name at least one dataset")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse(
        MergeOptions,
        argv,
        prog="pp-merge",
        description="Join several of our datasets into one, without encoding anything again.",
        example="pp-merge datasets/part_0 datasets/part_1 --output datasets/whole",
    )
    try:
        episodes = merge(list(options.sources), options.output)
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output} holds {episodes} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
