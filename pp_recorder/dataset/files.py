"""The files that belong to a dataset: named by patterns, and never outside of its directory.

A dataset may come from a stranger, so whatever it says of names is taken for text until it has
passed `fill_in`, and every path for a wish until it has passed `locate`.
"""

import os
import re
import string
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import is_count
from pp_recorder.dataset.tables import DatasetError

_NUMBERS = ("chunk_index", "file_index")
_CAMERA = "video_key"
_NUMBER_FORMAT = re.compile(r"(0?\d{1,2})?d?")  # such as 03d: no name needs more than two digits
_LONGEST = 1000  # characters of a pattern
_LONGEST_PART = 255  # bytes, of file systems
_SHOWN = 5
_META_FILES = (
    *(keys.INFO_PATH, keys.STATS_PATH, keys.COLLECTION_PATH),
    *(keys.TASKS_PATH, keys.SUBTASKS_PATH, keys.TASKS_JSONL_PATH),
)


def fill_in(pattern: Any, **values: Any) -> str:
    """Return a file's name relative to the dataset's directory, from a pattern of `info.json`.

    Args:
        pattern: Text with `{video_key}`, `{chunk_index}` and `{file_index}`; numbers may have a
            format such as `{file_index:03d}`.
        values: For these fields.

    Raises:
        DatasetError: The pattern or a value is none, or the name is outside of the dataset.
    """
    what = f"{pattern!r:.200}, which cannot be filled in with {values!r:.200}"
    for _, field in _parse(pattern):
        value = values.get(field or "")
        is_fine = is_count(value) if field in _NUMBERS else isinstance(value, str)
        if field is not None and not is_fine:
            raise DatasetError(f"{what}: {field} is {value!r:.100}")
    name = str(pattern).format(**values)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise DatasetError(f"{what}: {name!r:.200} is outside the dataset")
    if max(len(os.fsencode(part)) for part in parts) > _LONGEST_PART:
        raise DatasetError(f"{what}: a name has at most {_LONGEST_PART} bytes")
    return name


def locate(root: Path, name: str) -> Path:
    """Return the path of a file of the dataset, which need not exist.

    Args:
        root: The dataset's directory, which may itself be a link.
        name: Relative to it.

    Raises:
        DatasetError: It is not inside, after `..` and links are resolved.
    """
    path = root / name
    home, target = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    # The Hub's cache keeps the files of a snapshot in a folder of their own, under their hashes.
    is_blob = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not (target.is_relative_to(home) or is_blob):
        raise DatasetError(
            f"{root}: {name} leads outside the dataset, so it was not touched; put a copy of what "
            "it links to in its place"
        )
    return path


def require_inside(root: Path) -> None:
    """Raise an error if anything in a directory is a link to a place outside of it.

    Raises:
        DatasetError: As described there.
    """
    for parent, folders, names in os.walk(root):
        for name in (*folders, *names):
            locate(root, (Path(parent) / name).relative_to(root).as_posix())


def table_files(root: Path, folder: str, *patterns: Any) -> list[Path]:
    """Return the parquet files of a folder that are named by one of the patterns, in order.

    Others, such as a backup beside them, are not part of the dataset.

    Raises:
        DatasetError: One is outside of the dataset.
    """
    wanted = _names_like(patterns)
    found = (path for path in (root / folder).glob("*/*.parquet") if path.is_file())
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return [locate(root, name) for name in names if wanted.fullmatch(name)]


def video_files(root: Path, cameras: Iterable[str]) -> list[Path]:
    """Return the video files of these cameras that are named as we name them."""
    wanted = _names_like(keys.VIDEO_PATHS.values(), cameras)
    found = (root / keys.VIDEOS_FOLDER).glob("*/*/*.mp4")
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return [root / name for name in names if wanted.fullmatch(name)]


def foreign_files(root: Path, info: dict[str, Any]) -> list[str]:
    """Return what is in the dataset's folders and not named like a part of it.

    Args:
        root: The dataset's directory.
        info: The contents of `info.json`.
    """
    features = info.get("features")
    declared = features.items() if isinstance(features, dict) else ()
    cameras = [k for k, f in declared if isinstance(f, dict) and f.get("dtype") == "video"]
    own = (info.get("data_path"), info.get("video_path"))
    patterns = (*own, keys.DATA_PATH, keys.EPISODES_PATH, *keys.VIDEO_PATHS.values())
    wanted = _names_like(patterns, cameras)
    found = []
    for folder in (keys.DATA_FOLDER, keys.META_FOLDER, keys.VIDEOS_FOLDER):
        for parent, _, names in os.walk(root / folder):
            found += [(Path(parent) / name).relative_to(root).as_posix() for name in names]
    return sorted(n for n in found if n not in _META_FILES and not wanted.fullmatch(n))


def listed(names: list[str]) -> str:
    """Return names for a message: all that can be printed of the first few."""
    shown = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(shown)}{more}"


def _parse(pattern: Any) -> list[tuple[str, str | None]]:
    """Return the parts of a pattern: text, and the field behind it, or None.

    Raises:
        DatasetError: It has other fields than a name needs.
    """
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _LONGEST:
        raise DatasetError(f"{pattern!r:.200} is no pattern of file names")
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise DatasetError(f"{pattern!r:.200} is no pattern of file names: {error}") from error
    for _, field, form, conversion in parts:
        is_number = field in _NUMBERS and _NUMBER_FORMAT.fullmatch(form or "")
        is_camera = field == _CAMERA and not form
        if field is not None and (conversion or not (is_number or is_camera)):
            raise DatasetError(
                f"{pattern!r:.200} has the field {field!r:.50} with the format {form!r:.50}, "
                f"expected {_CAMERA}, or {' and '.join(_NUMBERS)} with a format such as 03d"
            )
    fields = [field for _, field, _, _ in parts if field is not None]
    if len(set(fields)) < len(fields):  # whether a name fits would be hard to tell
        raise DatasetError(f"{pattern!r:.200} has a field twice")
    return [(text, field) for text, field, _, _ in parts]


def _names_like(patterns: Iterable[Any], cameras: Iterable[str] = ()) -> re.Pattern[str]:
    """Return an expression for the names that patterns can give."""
    camera = "|".join(map(re.escape, cameras)) or r"(?!)"
    found = []
    for pattern in filter(None, patterns):
        try:
            parts = _parse(pattern)
        except DatasetError:
            continue
        fields = {_CAMERA: f"(?:{camera})", None: ""}
        found.append("".join(re.escape(text) + fields.get(f, r"\d+") for text, f in parts))
    return re.compile("|".join(found) or r"(?!)")
