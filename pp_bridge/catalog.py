"""The datasets in the service's root folder, and no file outside of it."""

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import av
import av.error

from pp_recorder.dataset import keys
from pp_recorder.dataset.packing import copy_video
from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.reader import Dataset, DatasetError, read_json
from pp_recorder.dataset.video import encode_jpeg

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_MAX_COUNT = 2**53  # that JavaScript can count, too
_MAX_FILES = 1_000_000  # of a dataset
_MAX_CLIPS = 16  # videos cut out of longer ones and kept
_MAX_MESSAGE = 1000  # characters
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s'\"/]+/)*(?=[^\s'\"/])")  # of an absolute path

P = ParamSpec("P")
T = TypeVar("T")


class OutsideRootError(ValueError):
    """A path that does not name a folder directly below the root."""


def _fails_alone(read: Callable[P, T]) -> Callable[P, T]:
    """Let a function raise no other error than a `DatasetError` about what strangers wrote."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (OutsideRootError, DatasetError):
            raise
        except Exception as error:  # libraries may fail in any way on a stranger's files
            raise DatasetError(
                f"the dataset can't be read: {type(error).__name__}: {error}"
            ) from error

    return guarded


class DatasetCatalog:
    """All datasets directly below one folder, each of which may be a stranger's.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._place = f"{root.resolve()}/"
        self._clips = tempfile.TemporaryDirectory(prefix="pp-bridge-")
        self._tidying = threading.Lock()

    def close(self) -> None:
        """Delete what was made for clients."""
        self._clips.cleanup()

    def without_paths(self, text: str) -> str:
        """Return a message for clients, who need not know where the root is."""
        text = text[: 10 * _MAX_MESSAGE].replace(self._place, "")
        return _readable(_FOLDERS.sub("", text)[:_MAX_MESSAGE])

    def locate(self, text: str) -> Path:
        """Return the folder that a name or a whole path stands for; it need not exist.

        Raises:
            OutsideRootError: It is not directly below the root, after `..` and links are resolved.
        """
        root = self.root.resolve()
        try:
            found = (root / text).resolve()
        except (ValueError, OSError, RuntimeError):  # a null byte, too long, a circle of links
            found = root
        if found.parent != root or not re.fullmatch(_NAME, found.name):
            raise OutsideRootError(
                "the output must be a folder directly below the service's root, named by letters, "
                f"digits and '._-', got {text[:200]!r}; try 'pick_place'"
            )
        return found

    def summaries(self) -> list[dict[str, Any]]:
        """Return name and size of every dataset, sorted by name, and what is wrong with it.

        Raises:
            OSError: The root can't be read.
        """
        found = []
        for path in sorted(self.root.iterdir()):
            if not re.fullmatch(_NAME, path.name) or path.is_symlink():
                continue
            if not os.path.lexists(path / keys.INFO_PATH):
                continue  # no dataset
            try:
                sizes = _sizes(path)
            except DatasetError as error:
                sizes = {"episodes": 0, "frames": 0, "error": self.without_paths(str(error))}
            found.append({"name": path.name, **sizes})
        return found

    @_fails_alone
    def version(self, name: str) -> tuple[Path, str]:
        """Return the folder of a dataset, and a text that changes with any of its files.

        Raises:
            OutsideRootError: The name is not that of a folder directly below the root.
            DatasetError: There is no such dataset.
        """
        root, digest, count = self.locate(name), hashlib.sha256(), 0
        if not os.path.lexists(root / keys.INFO_PATH):
            raise DatasetError(f"{name} is no LeRobot dataset: it has no {keys.INFO_PATH}")
        for folder, folders, names in os.walk(root):
            folders.sort()
            count += len(names)
            if count > _MAX_FILES:
                raise DatasetError(f"{name} must have at most {_MAX_FILES} files to be inspected")
            for path in (os.path.join(folder, name) for name in sorted(names)):
                with suppress(FileNotFoundError):  # a collection is going on
                    found = os.lstat(path)
                    digest.update(repr((path, found.st_size, found.st_mtime_ns)).encode())
        return root, digest.hexdigest()

    @_fails_alone
    def episodes(self, name: str, last: int) -> list[dict[str, Any]]:
        """Return the newest episodes of a dataset, the newest first."""
        dataset = Dataset(self.locate(name))
        cameras = [_readable(key.removeprefix(keys.IMAGE_PREFIX)) for key in dataset.cameras]
        return [
            {
                "episode": index,
                "length_s": dataset.episodes[index][keys.LENGTH] / dataset.fps,
                "success": _success(dataset.episodes[index]),
                "task": ", ".join(dataset.episodes[index][keys.TASKS]),
                "cameras": cameras,
            }
            for index in reversed(range(max(dataset.num_episodes - last, 0), dataset.num_episodes))
        ]

    @_fails_alone
    def video(self, name: str, episode: int, camera: str) -> Path:
        """Return a file with the images of an episode, and no others.

        Raises:
            OutsideRootError: The name is not that of a folder directly below the root.
            DatasetError: There is no such episode, camera or file, or it can't be read.
        """
        dataset, key, path = self._find_video(name, episode, camera)
        if dataset.is_alone(episode, key):
            return path
        found, folder = path.stat(), Path(self._clips.name)
        source = repr((path, found.st_size, found.st_mtime_ns, dataset.episodes[episode]))
        clip = folder / f"{hashlib.sha256(source.encode()).hexdigest()}.mp4"
        if not clip.exists():
            handle, made = tempfile.mkstemp(dir=folder)
            os.close(handle)
            try:
                copy_video(dataset, episode, key, Path(made))
                os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))  # it is its version
                os.replace(made, clip)
            except BaseException:
                os.unlink(made)
                raise
            with self._tidying:
                clips = sorted(folder.glob("*.mp4"), key=lambda made: made.stat().st_ctime_ns)
                for old in clips[:-_MAX_CLIPS]:
                    old.unlink()
        return clip

    def _find_video(self, name: str, episode: int, camera: str) -> tuple[Dataset, str, Path]:
        """Return a dataset, the feature of a camera, and the file that holds an episode's images.

        Raises:
            DatasetError: There is no such episode, camera or file.
        """
        dataset = Dataset(self.locate(name))
        key = keys.IMAGE_PREFIX + camera
        if key not in dataset.cameras or not 0 <= episode < dataset.num_episodes:
            raise DatasetError(
                f"{name} has {dataset.num_episodes} episodes from 0 on and the cameras "
                f"{dataset.cameras}, no pictures of episode {episode} by {key}"
            )
        path = dataset.video_path(episode, key)
        if not path.is_file():
            raise DatasetError(f"{name} lacks the video of episode {episode} by {key}")
        return dataset, key, path

    @_fails_alone
    def thumbnail(self, name: str, episode: int, camera: str) -> bytes:
        """Return a JPEG of the middle of an episode.

        Raises:
            DatasetError: There is no such episode or camera, or its video can't be decoded.
        """
        dataset, key, path = self._find_video(name, episode, camera)
        begin, end = (
            dataset.episodes[episode][keys.video_column(key, f"{side}_timestamp")]
            for side in ("from", "to")
        )
        middle = (begin + end) / 2
        try:
            with av.open(media_url(path)) as container:
                container.seek(round(middle * 1e6))  # to a key frame before it
                frame = next(container.decode(video=0))
        except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
            raise DatasetError(f"{path} can't be decoded: {error}") from None
        return encode_jpeg(frame.to_ndarray(format="rgb24"))


@_fails_alone
def _sizes(root: Path) -> dict[str, Any]:
    """Return what `info.json` says of the size of a dataset."""
    info = read_json(root / keys.INFO_PATH) or {}
    counts = {name: info.get(f"total_{name}") for name in ("episodes", "frames")}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise DatasetError(
                f"{keys.INFO_PATH}: total_{name} is {str(count)[:100]}, expected a whole number"
            )
    return counts


def _success(entry: dict[str, Any]) -> bool | None:
    found = entry.get(keys.EPISODE_SUCCESS)
    return found if isinstance(found, bool) else None


def _readable(text: str) -> str:
    """Return a text that UTF-8 can encode: a lone surrogate in JSON is none."""
    return text.encode(errors="backslashreplace").decode()
