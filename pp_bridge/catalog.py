"""The datasets in the service's root folder, and no file outside of it."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import av
import av.error

from pp_recorder.dataset import keys
from pp_recorder.dataset.packing import copy_video
from pp_recorder.dataset.paths import media_url
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.video import encode_jpeg

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class OutsideRootError(ValueError):
    """A path that does not name a folder directly below the root."""


class DatasetCatalog:
    """All datasets directly below one folder.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inspecting = threading.Lock()  # a report keeps a core busy

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
                f"the output must be a folder directly below {root}, named by letters, digits and "
                f"'._-', got {text[:200]!r}; try 'pick_place'"
            )
        return found

    def summaries(self) -> list[dict[str, Any]]:
        """Return name and size of every dataset, sorted by name.

        Raises:
            OSError: The root can't be read.
        """
        found = []
        for path in sorted(self.root.iterdir()):
            if not re.fullmatch(_NAME, path.name) or path.is_symlink():
                continue
            try:
                info = json.loads((path / keys.INFO_PATH).read_text())
                episodes, frames = int(info["total_episodes"]), int(info["total_frames"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not a dataset
            found.append({"name": path.name, "episodes": episodes, "frames": frames})
        return found

    def dataset(self, name: str) -> Dataset:
        """Open a dataset.

        Raises:
            OutsideRootError: The name is not that of a folder directly below the root.
            DatasetError: There is no such dataset.
        """
        return Dataset(self.locate(name))

    def episodes(self, name: str, last: int) -> list[dict[str, Any]]:
        """Return the newest episodes of a dataset, the newest first."""
        dataset = self.dataset(name)
        return [
            {
                "episode": index,
                "length_s": dataset.episodes[index][keys.LENGTH] / dataset.fps,
                "success": dataset.episodes[index].get(keys.EPISODE_SUCCESS),
                "task": ", ".join(dataset.episodes[index][keys.TASKS]),
                "cameras": [key.removeprefix(keys.IMAGE_PREFIX) for key in dataset.cameras],
            }
            for index in reversed(range(max(dataset.num_episodes - last, 0), dataset.num_episodes))
        ]

    def video(self, name: str, episode: int, camera: str) -> tuple[Path, bool]:
        """Return a file with the images of an episode, and no others.

        Returns:
            Its path, and whether it was made for this call, so that the caller deletes it.

        Raises:
            DatasetError: There is no such episode, camera or file, or it can't be read.
        """
        dataset, key, path = self._find_video(name, episode, camera)
        if dataset.is_alone(episode, key):
            return path, False
        handle, made = tempfile.mkstemp(suffix=".mp4")
        os.close(handle)
        try:
            copy_video(dataset, episode, key, Path(made))
        except BaseException:
            os.unlink(made)
            raise
        os.utime(made, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # it is its version
        return Path(made), True

    def _find_video(self, name: str, episode: int, camera: str) -> tuple[Dataset, str, Path]:
        """Return a dataset, the feature of a camera, and the file that holds an episode's images.

        Raises:
            DatasetError: There is no such episode, camera or file.
        """
        dataset = self.dataset(name)
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

    def report(self, name: str) -> dict[str, Any]:
        """Return the report of `pp-inspect`; a child process makes it, as it decodes all videos.

        Raises:
            DatasetError: There is no such dataset, or it can't be inspected.
        """
        root = self.dataset(name).root
        command = [sys.executable, "-m", "pp_recorder.checks.cli", str(root), "--json", "-"]
        with self._inspecting:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return {**json.loads(done.stdout), "dataset": name}
        except json.JSONDecodeError:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise DatasetError(f"{name} can't be inspected: {last}") from None
