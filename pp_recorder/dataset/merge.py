"""Join several datasets into one, without encoding anything again.

Example: pp-merge datasets/part_0 datasets/part_1 --output datasets/whole
"""

import logging
import shutil
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from typing_extensions import Doc

from pp_recorder.command_line import PATH_TEXT, Folder, Form, Options, Typed, parse, parse_folder
from pp_recorder.dataset import keys, tables
from pp_recorder.dataset.commit import staging_path
from pp_recorder.dataset.episode import EncodedEpisode
from pp_recorder.dataset.files import foreign_files, listed
from pp_recorder.dataset.packing import copy_video, layout_of
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.remux import RemuxError, read_index
from pp_recorder.dataset.schema import BOOKKEEPING, DatasetSchema, canonical_feature
from pp_recorder.dataset.writer import LeRobotWriter, require_empty
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error, is_disk_full

# Provenance in which the parts of one collection agree.
_SAME_COLLECTION = ("seed", "task", "object", "start_mix", "start_policy", "start_policy_sha256")
_LOG = logging.getLogger(__name__)


def merge(sources: list[Path], output: Path, processes: int = 1) -> int:
    """Write the episodes of all sources, in order, to a new dataset; return their number.

    Episodes are renumbered and statistics folded as if one run had recorded them: parts of one
    collection (`--first-attempt`) give the dataset that the whole collection would have given.
    Video files are laid out as in the first source. What programs write in different ways, such as
    the name of a codec, is written in ours.

    Args:
        sources: The datasets' directories.
        output: An absent or empty directory.
        processes: Number of processes at most that join videos.

    Raises:
        DatasetError: A source cannot be read, or the sources do not fit together.
        FileExistsError: The output is in use or not empty.
        ValueError: A source is given twice, or the output is inside of one.
    """
    _require_apart(sources, output)
    require_empty(output, can_resume=False)
    parts = [Part(Dataset(source)) for source in sources]
    for part in parts[1:]:
        _require_alike(parts[0], part)
    first = parts[0].dataset
    roots = [part.dataset.root / keys.EPISODES_FOLDER for part in parts]
    extra = tables.common_schema([part.dataset.extra_schema for part in parts], roots)
    schema = DatasetSchema(
        features={},
        row=_refuse_step,
        fps=first.fps,
        task=_refuse_start,
        robot_type=first.info.get("robot_type", ""),
        collection=_merge_collections(parts),
        subtasks=next((part.subtasks for part in parts if part.subtasks), ()),
        info=_merge_infos(parts),
    )
    existed = output.exists()
    try:
        writer = LeRobotWriter(output, schema, video_files=layout_of(first.info))
    except OSError as error:
        if is_disk_full(error):  # so the output was empty
            _remove(output, existed)
        raise
    try:
        for part in parts:
            for k in range(part.dataset.num_episodes):
                writer.add_episode(part.episode(k, writer.root, extra))
        for part in parts:
            writer.add_tasks(part.tasks)
        _warn_of_repeats(parts)
        writer.finalize(processes)
    except BaseException:
        writer.release()
        _remove(output, existed)
        raise
    writer.release()
    return writer.num_episodes


def _remove(output: Path, existed: bool) -> None:
    """Leave the output as it was: absent, or empty."""
    shutil.rmtree(output, ignore_errors=True)
    if existed:
        output.mkdir()


class Part:
    """A dataset that is joined with others, and all that is kept of it.

    Args:
        dataset: By this project or not.

    Attributes:
        dataset: The same.
        collection: Its provenance, if it is known.
        features: Its columns, as we declare them.
        tasks: Its task texts.
        subtasks: Its texts of subtasks; there may be none.

    Raises:
        DatasetError: It has columns that it does not declare, or lacks those of every dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        if foreign := foreign_files(dataset.root, dataset.info):
            _LOG.warning(f"{dataset.root} has files of others, left out: {listed(foreign)}")
        self.collection = dataset.collection
        self.subtasks = dataset.subtasks
        texts = dataset.tasks
        self.tasks = texts[: dataset.info.get("total_tasks", len(texts))]
        self._all_tasks = texts
        stored = set(dataset.column_names) if dataset.num_episodes else set(dataset.features)
        if extra := sorted(stored - dataset.features.keys()):
            raise DatasetError(
                f"{dataset.root}/{keys.DATA_FOLDER} has a column {extra[0]}, which "
                f"{keys.INFO_PATH} does not declare, so nobody knows what it holds; nothing was "
                "written"
            )
        if missing := [key for key in BOOKKEEPING if key not in stored]:
            raise DatasetError(f"{dataset.root}/{keys.DATA_FOLDER} has no column {missing[0]}")
        self.features = {
            key: canonical_feature(feature)
            for key, feature in dataset.features.items()
            if feature["dtype"] == "video" or key in stored
        }
        if absent := sorted(dataset.features.keys() - self.features.keys()):
            _LOG.warning(f"{dataset.root} declares {absent}, but no file has them: left out")

    def episode(self, k: int, scratch: Path, extra: pa.Schema) -> EncodedEpisode:
        """Return an episode, with copies of its videos.

        Args:
            k: Its number.
            scratch: The directory of the dataset that it goes to.
            extra: Columns of `meta/episodes` beyond LeRobot's, of all parts.
        """
        dataset, entry = self.dataset, self.dataset.episodes[k]
        rows = dataset.rows(k)
        columns = {key: self._as_declared(key, rows[key]) for key in rows}
        videos = {}
        for camera in dataset.cameras:
            copy = staging_path(scratch, f"{camera}.mp4")
            copy_video(dataset, k, camera, copy)
            self._check_video(k, camera, copy)
            videos[camera] = (copy, dataset.episode_stats(camera)[k])
        kept = {
            key: (dataset.stored_rows(key, k), dataset.episode_stats(key)[k])
            for key, feature in self.features.items()
            if key not in columns and feature["dtype"] != "video"
        }
        tasks, numbers = self._tasks_of(entry, columns[keys.TASK_INDEX][:, 0])
        own = dataset.extra(k)
        values = {
            field.name: own[field.name].cast(field.type)
            if field.name in own
            else pa.scalar(None, field.type)
            for field in extra
        }
        return EncodedEpisode(columns, videos, tasks, values, numbers, kept)

    def _check_video(self, k: int, camera: str, copy: Path) -> None:
        """Raise an error unless a video holds one image per row."""
        dataset, expected = self.dataset, self.dataset.episodes[k][keys.LENGTH]
        try:
            found = read_index(copy, dataset.fps).count(0, expected)
        except RemuxError:
            found = 0
        if found != expected:
            raise DatasetError(
                f"{dataset.video_path(k, camera)} has {found} images of episode {k}, expected "
                f"{expected}"
            )

    def _as_declared(self, key: str, values: np.ndarray) -> np.ndarray:
        """Return the values of a column; raise an error if they have not the declared width."""
        size = self.features[key]["shape"][0]
        if values.shape[1] != size:
            raise DatasetError(
                f"{self.dataset.root}/{keys.DATA_FOLDER}: {key} has {values.shape[1]} values in a "
                f"row, {keys.INFO_PATH} declares {size}"
            )
        return values

    def _tasks_of(
        self, entry: dict[str, Any], indices: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray | None]:
        """Return the texts of an episode, and which of them each row has.

        Args:
            entry: The episode's row of `meta/episodes`.
            indices: `task_index` of its rows.
        """
        listed = entry[keys.TASKS]
        if not self._all_tasks and len(listed) == 1:
            return tuple(listed), None
        if indices.min() < 0 or indices.max() >= len(self._all_tasks):
            raise DatasetError(
                f"{self.dataset.root}: episode {entry[keys.EPISODE_INDEX]} has the task_index "
                f"{int(indices.max())}, but {keys.TASKS_PATH} has {len(self._all_tasks)} texts"
            )
        used, numbers = np.unique(indices, return_inverse=True)
        texts = [self._all_tasks[int(index)] for index in used]
        tasks = list(dict.fromkeys([*listed, *texts]))
        return tuple(tasks), np.array([tasks.index(text) for text in texts])[numbers.ravel()]


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


def _require_apart(sources: list[Path], output: Path) -> None:
    """Raise a `ValueError` if a folder, however it is spelt or linked, would be joined twice."""
    known: dict[Path, Path] = {}
    for source in sources:
        root = source.resolve()
        if root in known:
            also = "" if str(source) == str(known[root]) else f", also as {known[root]}"
            raise ValueError(
                f"{source} is given twice{also}: its episodes would be there twice; nothing was "
                "written"
            )
        if output.resolve().is_relative_to(root):
            raise ValueError(
                f"the output {output} is inside the source {source}; nothing was written. Choose "
                "a folder beside it"
            )
        known[root] = source


def _warn_of_repeats(parts: list[Part]) -> None:
    """Name the episodes of ours that several sources have, such as those of a copy."""
    known: dict[tuple[Any, bytes], str] = {}
    for part in parts:
        dataset, repeats = part.dataset, []
        for k in range(dataset.num_episodes):
            seed = dataset.extra(k).get(keys.EPISODE_SEED)
            actions = dataset.rows(k, [keys.ACTION]).get(keys.ACTION)
            if seed is None or actions is None:
                continue
            name = f"episode {k} of {dataset.root}"
            first = known.setdefault((seed.as_py(), sha256(actions.tobytes()).digest()), name)
            if first != name:
                repeats.append(f"{name} is {first}")
        if repeats:
            _LOG.warning(
                f"{len(repeats)} of {dataset.num_episodes} episodes are there twice: {repeats[0]}; "
                "parts of a collection differ in --first-attempt or --seed"
            )


def _require_alike(one: Part, other: Part) -> None:
    """Raise a `DatasetError` if two datasets differ in what parts of one must have in common.

    What is not known of one of them, because others have edited it, is not compared.
    """
    differing = []
    ours, theirs = one.collection, other.collection
    if ours is not None and theirs is not None:
        common = sorted((ours.keys() | theirs.keys()) - set(keys.MAY_DIFFER_BETWEEN_PARTS))
        # "parts" tell how a part was joined before, and the codec is in its features
        differing += [k for k in common if k != "parts" and ours.get(k) != theirs.get(k)]
    if one.subtasks and other.subtasks and one.subtasks != other.subtasks:
        differing.append("subtasks")
    for key in ("fps", "robot_type"):
        values = {str(part.dataset.info.get(key) or "") for part in (one, other)}
        if len(values - {""}) > 1:
            differing.append(key)
    for key in dict.fromkeys([*one.features, *other.features]):
        differing += _feature_differences(key, one.features.get(key), other.features.get(key))
    if differing:
        raise DatasetError(
            f"{one.dataset.root} and {other.dataset.root} differ in {', '.join(differing)}, so "
            "they are not parts of one dataset"
        )


def _feature_differences(
    key: str, one: dict[str, Any] | None, other: dict[str, Any] | None
) -> list[str]:
    """Return in what two declarations disagree that both of them name, in words."""
    if one is None or other is None:
        return [f"the feature {key}, which only one of them has"]
    ours, theirs = one.get("info") or {}, other.get("info") or {}
    pairs = [(name, one.get(name), other.get(name)) for name in ("dtype", "shape", "names")]
    for name in ("video.codec", "video.pix_fmt", "video.is_depth_map"):
        if name in ours and name in theirs:
            pairs.append((name, ours[name], theirs[name]))
    return [f"the feature {key} ({name} {a!r} and {b!r})" for name, a, b in pairs if a != b]


def _merge_infos(parts: list[Part]) -> dict[str, Any]:
    """Return the first dataset's `info.json`, with what is true of the videos of all parts."""
    features = {}
    for key, feature in parts[0].features.items():
        details = feature.get("info")
        if feature["dtype"] == "video" and isinstance(details, dict):
            others = [part.features[key].get("info") or {} for part in parts]
            common = {
                name: value
                for name, value in details.items()
                if all(other.get(name) == value for other in others)
            }
            feature = {**feature, "info": common}
        features[key] = feature
    info = parts[0].dataset.info
    paths: dict[str, str | None] = {"data_path": keys.DATA_PATH}
    if "video_path" in info:
        has_cameras = bool(parts[0].dataset.cameras)
        paths["video_path"] = keys.VIDEO_PATHS[layout_of(info)] if has_cameras else None
    return {**info, "chunks_size": keys.CHUNK_SIZE, **paths, "features": features}


def _merge_collections(parts: list[Part]) -> dict[str, Any] | None:
    """Return the first known provenance, with that of each part if it was collected apart."""
    stored = [part.collection for part in parts]
    known = [collection for collection in stored if collection is not None]
    if not known:
        return None
    first = known[0]
    differing = [k for k in _SAME_COLLECTION if any(s.get(k) != first.get(k) for s in known)]
    if not differing and len(known) == len(stored) and not any("parts" in s for s in known):
        attempts = [s["first_attempt"] for s in known if "first_attempt" in s]
        return {**first, **({"first_attempt": min(attempts)} if attempts else {})}
    merged = [entry for part in parts for entry in _provenance_parts(part)]
    unknown = {key: None for key in differing if key in ("task", "object")}
    return {**first, **unknown, "parts": merged}


def _provenance_parts(part: Part) -> list[dict[str, Any]]:
    """Return what the provenance says of each run of a part's episodes."""
    collection, left = part.collection or {}, part.dataset.num_episodes
    found = []
    entries = collection.get("parts", [{**collection, "episodes": left}])
    try:
        for entry in entries:
            values = {key: entry.get(key) for key in keys.MAY_DIFFER_BETWEEN_PARTS}
            found.append({"episodes": min(entry["episodes"], left), **values})
            left -= found[-1]["episodes"]
    except (LookupError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{part.dataset.root / keys.COLLECTION_PATH}: parts is {entries!r}, expected a list of "
            f"dictionaries with episodes"
        ) from error
    if left:  # appended by others
        found.append({"episodes": left, **dict.fromkeys(keys.MAY_DIFFER_BETWEEN_PARTS)})
    return found


def _refuse_step(step: object) -> dict:
    raise NotImplementedError("a merge adds whole episodes")


def _refuse_start(info: object) -> str:
    raise NotImplementedError("a merge adds whole episodes")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """The options of `pp-merge`."""

    sources: Annotated[
        tuple[str, ...],
        PATH_TEXT,
        Doc("datasets, in order"),
        Form.POSITIONAL,
        Typed("DATASET..."),
    ]
    output: Annotated[Folder, Doc("absent or empty folder")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ValueError("give at least one dataset to join, got none")
        for source in self.sources:
            parse_folder(source)


def main(argv: list[str] | None = None, processes: int = 1) -> int:
    """Run the command line, with so many processes at most; return the exit status."""
    options = parse(
        MergeOptions,
        argv,
        prog="pp-merge",
        description="Join several datasets into one, without encoding anything again.",
        example="pp-merge datasets/part_0 datasets/part_1 --output datasets/whole",
    )
    safe = f"the sources are as they were, and nothing is left in {options.output}"
    try:
        raise_on_interrupt()
        sources = [parse_folder(source) for source in options.sources]
        episodes = merge(sources, options.output, processes)
    except (ValueError, OSError) as error:
        text = describe_error(error, f"{safe}; once there is room, merge again")
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted(safe)
    print(f"{options.output} holds {episodes} episodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
