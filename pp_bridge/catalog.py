"""The folder that holds all datasets: what is in it, and nothing outside of it."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import av
import av.error

from pp_bridge.encoder import Encoder
from pp_recorder.dataset.reader import INFO_PATH, Dataset, DatasetError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_CAMERA_PREFIX = "observation.images."


class OutsideRootError(ValueError):
    """A path does not name a folder directly below the root."""


class DatasetCatalog:
    """Datasets that lie side by side.

    Args:
        root: Their common folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inspecting = threading.Lock()  # a report takes a core for a while

    def locate(self, text: str) -> Path:
        """The folder that a name, or a whole path, stands for; it need not exist.

        Raises:
            OutsideRootError: It is not directly below the root, be it by `..` or by a link.
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
        """Name and size of every dataset, by name.

        Raises:
            OSError: The root is gone.
        """
        found = []
        for path in sorted(self.root.iterdir()):
            if not re.fullmatch(_NAME, path.name) or path.is_symlink():
                continue
            try:
                info = json.loads((path / INFO_PATH).read_text())
                episodes, frames = int(info["total_episodes"]), int(info["total_frames"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # something else
            found.append({"name": path.name, "episodes": episodes, "frames": frames})
        return found

    def dataset(self, name: str) -> Dataset:
        """A dataset.

        Raises:
            OutsideRootError: The name leads elsewhere.
            DatasetError: There is none of that name.
        """
        return Dataset(self.locate(name))

    def episodes(self, name: str, last: int) -> list[dict[str, Any]]:
        """The newest episodes of a dataset, the newest first."""
        dataset = self.dataset(name)
        return [
            {
                "episode": index,
                "length_s": dataset.episodes[index]["length"] / dataset.fps,
                "success": dataset.episodes[index].get("episode/success"),
                "task": ", ".join(dataset.episodes[index]["tasks"]),
                "cameras": [key.removeprefix(_CAMERA_PREFIX) for key in dataset.cameras],
            }
            for index in reversed(range(max(dataset.num_episodes - last, 0), dataset.num_episodes))
        ]

    def video(self, name: str, episode: int, camera: str) -> Path:
        """The file with an episode's pictures.

        Raises:
            DatasetError: There is none.
        """
        dataset = self.dataset(name)
        key = _CAMERA_PREFIX + camera
        if key not in dataset.cameras or not 0 <= episode < dataset.num_episodes:
            raise DatasetError(
                f"{name} has {dataset.num_episodes} episodes from 0 on and the cameras "
                f"{dataset.cameras}, no pictures of episode {episode} by {key}"
            )
        path = dataset.video_path(episode, key).resolve()
        if not path.is_relative_to(dataset.root) or not path.is_file():
            raise DatasetError(f"{name} lacks the video of episode {episode} by {key}")
        return path

    def thumbnail(self, name: str, episode: int, camera: str) -> bytes:
        """A JPEG of the middle of an episode.

        Raises:
            DatasetError: There is none.
        """
        path, entry = self.video(name, episode, camera), self.dataset(name).episodes[episode]
        key = f"videos/{_CAMERA_PREFIX}{camera}"
        middle = (entry[f"{key}/from_timestamp"] + entry[f"{key}/to_timestamp"]) / 2
        try:
            with av.open(str(path)) as container:
                container.seek(round(middle * 1e6))  # to a key frame before it
                frame = next(container.decode(video=0))
        except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
            raise DatasetError(f"{path} can't be decoded: {error}") from None
        return Encoder().jpeg(frame.to_ndarray(format="rgb24"))

    def report(self, name: str) -> dict[str, Any]:
        """What `pp-inspect` says, in a process of its own: it decodes everything.

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
