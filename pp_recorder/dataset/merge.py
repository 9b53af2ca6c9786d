"""Join several of our datasets into one, without encoding anything again.

Example: pp-merge datasets/part_0 datasets/part_1 --output datasets/whole
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from typing_extensions import Doc

from pp_recorder.command_line import Folder, Options, parse, parse_folder
from pp_recorder.dataset import keys, stats
from pp_recorder.dataset.commit import staging_path
from pp_recorder.dataset.episode import EncodedEpisode
from pp_recorder.dataset.reader import Dataset, DatasetError, stored_stats
from pp_recorder.dataset.schema import BOOKKEEPING, DatasetSchema, Feature
from pp_recorder.dataset.writer import LeRobotWriter

# Provenance in which the parts of one collection agree.
_SAME_COLLECTION = ("seed", "task", "object", "start_mix", "start_policy", "start_policy_sha256")


def merge(sources: list[Path], output: Path) -> int:
    """Write the episodes of all sources, in order, to a new dataset; return their number.

    Episodes are renumbered and statistics folded as if one run had recorded them: parts of one
    collection (`--first-attempt`) give the dataset that the whole collection would have given.

    Args:
        sources: The datasets' directories.
        output: An absent or empty directory.

    Raises:
        DatasetError: A source is not by this project, or the sources do not fit together.
        FileExistsError: The output is in use or not empty.
    """
    datasets = [Dataset(source) for source in sources]
    stored = [_collection(dataset) for dataset in datasets]
    for dataset, collection in zip(datasets[1:], stored[1:], strict=True):
        _require_alike(datasets[0], stored[0], dataset, collection)
    first = datasets[0]
    schema = DatasetSchema(
        features=_schema_features(first),
        row=_refuse_step,
        fps=first.fps,
        task=_refuse_start,
        robot_type=first.info["robot_type"],
        collection=_merge_collections(datasets, stored),
        subtasks=first.subtasks,
        codec=stored[0]["codec"],
    )
    writer = LeRobotWriter(output, schema)
    try:
        for dataset in datasets:
            for k in range(dataset.num_episodes):
                _copy_episode(writer, dataset, k)
        writer.close()
    finally:
        writer.release()
    return writer.num_episodes


def provenance_of(collection: dict[str, Any], episode: int) -> dict[str, Any]:
    """Return the provenance of an episode: in a merged dataset, that of the part it came from.

    Args:
        collection: The dataset's provenance.
        episode: Its number in the dataset.
    """
    for part in collection.get("parts", []):
        if episode < part["episodes"]:
            return {**collection, **part}
        episode -= part["episodes"]
    return collection


def _copy_episode(writer: LeRobotWriter, dataset: Dataset, episode: int) -> None:
    """Add an episode of a dataset to the writer's."""
    entry = dataset.episodes[episode]
    columns = {k: v for k, v in dataset.rows(episode).items() if k not in BOOKKEEPING}
    videos: dict[str, tuple[Path, stats.Stats]] = {}
    for camera in dataset.cameras:
        copy = staging_path(writer.root, f"{camera}.mp4")
        shutil.copyfile(dataset.video_path(episode, camera), copy)
        videos[camera] = (copy, stored_stats(entry, camera))
    extra = {key: value for key, value in entry.items() if key.startswith(keys.EPISODE_PREFIX)}
    writer.add_episode(EncodedEpisode(columns, videos, tuple(entry[keys.TASKS]), extra))


def _collection(dataset: Dataset) -> dict[str, Any]:
    """Return a dataset's provenance; raise a `DatasetError` if it has none of ours."""
    stored = dataset.collection
    if stored is None or "codec" not in stored:
        raise DatasetError(
            f"{dataset.root} was not recorded by this project (it has no {keys.COLLECTION_PATH}); "
            "lerobot's own merge joins foreign datasets"
        )
    return stored


def _require_alike(
    one: Dataset, stored: dict[str, Any], other: Dataset, collection: dict[str, Any]
) -> None:
    """Raise a `DatasetError` if two datasets differ in what parts of one must have in common."""
    common = sorted((stored.keys() | collection.keys()) - set(keys.MAY_DIFFER_BETWEEN_PARTS))
    differing = [key for key in common if stored.get(key) != collection.get(key)]
    if one.subtasks != other.subtasks:
        differing.append("subtasks")
    if one.features != other.features:
        differing.append("features")
    if differing:
        raise DatasetError(
            f"{one.root} and {other.root} differ in {', '.join(differing)}, so they are not parts "
            "of one dataset"
        )


def _merge_collections(datasets: list[Dataset], stored: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first dataset's provenance, with that of each part if it was collected apart."""
    differing = [k for k in _SAME_COLLECTION if any(s.get(k) != stored[0].get(k) for s in stored)]
    if not differing:
        return {**stored[0], "first_attempt": min(s["first_attempt"] for s in stored)}
    parts = [
        {
            "episodes": dataset.num_episodes,
            **{key: s.get(key) for key in keys.MAY_DIFFER_BETWEEN_PARTS},
        }
        for dataset, s in zip(datasets, stored, strict=True)
    ]
    unknown = {key: None for key in differing if key in ("task", "object")}
    return {**stored[0], **unknown, "parts": parts}


def _schema_features(dataset: Dataset) -> dict[str, Feature]:
    """Return the features that a `DatasetSchema` declares: all but outcome and bookkeeping."""
    return {
        key: Feature(f["dtype"], tuple(f["shape"]), tuple(f["names"]) if f["names"] else None)
        for key, f in dataset.features.items()
        if key not in BOOKKEEPING and not key.startswith(keys.OUTCOME_PREFIX)
    }


def _refuse_step(step: object) -> dict:
    raise NotImplementedError("a merge adds whole episodes")


def _refuse_start(info: object) -> str:
    raise NotImplementedError("a merge adds whole episodes")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """The options of `pp-merge`."""

    sources: Annotated[
        tuple[str, ...],
        Doc("datasets, in order"),
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATASET..."),
    ]
    output: Annotated[Folder, Doc("absent or empty folder")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ValueError("give at least one dataset to join, got none")
        for source in self.sources:
            parse_folder(source)


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
        episodes = merge([parse_folder(source) for source in options.sources], options.output)
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output} holds {episodes} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
