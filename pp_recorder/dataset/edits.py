"""What others have made of a dataset that is to be resumed: kept where it fits, refused otherwise.

A resumed collection writes into the files that are there, so whatever it cannot write itself, such
as a column that an annotator has added, is refused before anything is changed.
"""

from pathlib import Path
from typing import Any

from pp_recorder.dataset import keys, stats, tables
from pp_recorder.dataset.files import table_files
from pp_recorder.dataset.reader import stored_stats
from pp_recorder.dataset.tables import DatasetError

_WAY_OUT = (
    "nothing was changed. Others have edited the dataset since it was recorded, so it cannot be "
    "continued; collect into another output, and join both with pp-merge or LeRobot's merge"
)


def require_same_columns(root: Path, location: str, info: dict[str, Any], ours: dict) -> None:
    """Raise an error unless a dataset has the columns and files that we go on to write.

    Args:
        root: The dataset's directory.
        location: Its name in messages.
        info: The contents of its `info.json`.
        ours: What `info.json` says in a dataset of ours.

    Raises:
        DatasetError: Something differs.
    """
    for key in ("fps", "data_path", "video_path"):
        if info.get(key) != ours[key]:
            what = f"{key} is {info.get(key)!r}, expected {ours[key]!r}"
            raise DatasetError(f"{location}/{keys.INFO_PATH}: {what}; {_WAY_OUT}")
    declared, expected = info["features"], ours["features"]
    for key in [*declared, *expected]:
        if _layout(declared.get(key)) != _layout(expected.get(key)):
            what = f"the feature {key} is {_layout(declared.get(key))}"
            what += f", here it is {_layout(expected.get(key))}"
            raise DatasetError(f"{location}/{keys.INFO_PATH}: {what}; {_WAY_OUT}")
    columns = {key for key, feature in expected.items() if feature["dtype"] != "video"}
    for path in table_files(root, keys.DATA_FOLDER, keys.DATA_PATH):
        try:
            differing = columns ^ set(tables.column_names(path))
        except DatasetError:
            continue  # the recovery cuts it off
        if differing:
            name = path.relative_to(root)
            raise DatasetError(
                f"{location}/{name}: the columns {sorted(differing)} are there or in "
                f"{keys.INFO_PATH}, but not in both; {_WAY_OUT}"
            )


def require_own_episodes(
    location: str, entries: list[dict[str, Any]], needed: tuple[str, ...], features: list[str]
) -> None:
    """Raise an error unless we have recorded every episode.

    Args:
        location: The dataset's name in messages.
        entries: The rows of `meta/episodes`.
        needed: The columns without which we cannot go on.
        features: Those of which each episode has statistics.

    Raises:
        DatasetError: An episode lacks something.
    """
    for entry in entries:
        missing = [name for name in needed if entry.get(name) is None]
        for key in features:
            names = (*stats.BASIC, *stats.QUANTILES)
            found = stored_stats(entry, key)
            missing += [keys.stats_column(key, name) for name in names if name not in found]
        attempt = entry.get(keys.EPISODE_ATTEMPT)
        if keys.EPISODE_ATTEMPT in needed and attempt is not None and not isinstance(attempt, int):
            raise DatasetError(
                f"{location}/{keys.EPISODES_FOLDER}: episode {entry[keys.EPISODE_INDEX]} has the "
                f"{keys.EPISODE_ATTEMPT} {attempt!r}, expected a whole number; {_WAY_OUT}"
            )
        if missing:
            raise DatasetError(
                f"{location}/{keys.EPISODES_FOLDER}: episode {entry[keys.EPISODE_INDEX]} has no "
                f"{missing[0]}; {_WAY_OUT}"
            )


def _layout(feature: dict[str, Any] | None) -> str:
    """Return what of a feature's declaration must be the same, in words."""
    if feature is None:
        return "not declared"
    return f"{feature['dtype']} {feature['shape']} with the names {feature.get('names')}"
