"""What is recorded of an episode, and the recording itself, before it is part of a dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.dataset.stats import Stats
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.rollout import Episode, Step


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode that is complete but for its number.

    Attributes:
        columns: (length, size) per column of numbers, bookkeeping left out.
        videos: Per camera, a finished file that may be moved away, and its pictures' statistics.
        task: What the robot was told to do.
        extra: The extra columns of `meta/episodes`.
    """

    columns: dict[str, np.ndarray]
    videos: dict[str, tuple[Path, Stats]]
    task: str
    extra: dict[str, Any]


@dataclass(frozen=True)
class EpisodePayload:
    """A recorded episode with its files in it, to be sent to another process or machine."""

    episode: EncodedEpisode
    contents: dict[str, bytes]

    @classmethod
    def pack(cls, episode: EncodedEpisode) -> "EpisodePayload":
        """Takes the episode's files, which are deleted."""
        contents = {camera: path.read_bytes() for camera, (path, _) in episode.videos.items()}
        for path, _ in episode.videos.values():
            path.unlink()
        return cls(episode, contents)

    def unpack(self, folder: Path) -> EncodedEpisode:
        """The episode with its files in this folder."""
        videos = {}
        for camera, content in self.contents.items():
            path = folder / f"{camera}.mp4"
            path.write_bytes(content)
            videos[camera] = path, self.episode.videos[camera][1]
        return replace(self.episode, videos=videos)


class EpisodeRecorder:
    """An `EpisodeSink` that records one episode after another, each to be taken when it has ended.

    Args:
        folder: Where videos grow; it exists when an episode begins.
        recording: What is recorded.
    """

    def __init__(self, folder: Path, recording: DatasetSchema) -> None:
        self._recorded: EncodedEpisode | None = None
        self._folder = folder
        self._recording = recording
        self._rows: list[dict[str, np.ndarray]] = []
        self._encoders: dict[str, VideoEncoder] = {}

    def begin(self, seed: int) -> None:
        """Starts an episode."""
        self._recorded, self._rows = None, []
        self._encoders = {
            key: VideoEncoder(
                self._folder / f"{key}.mp4", self._recording.codec, self._recording.fps
            )
            for key in self._recording.cameras
        }

    def add(self, step: Step) -> None:
        """Takes one step; waits while the encoders are behind.

        Raises:
            ValueError: A value has not the shape that its feature declares.
            RuntimeError: An encoder failed.
        """
        row = self._recording.row(step)
        self._check(row)
        for key, encoder in self._encoders.items():
            encoder.add(row.pop(key))
        row["next.reward"] = np.array([step.reward])
        row["next.done"] = np.array([step.done])
        row["next.success"] = np.array([step.success])
        self._rows.append(row)

    def end(self, episode: Episode) -> None:
        """Completes the episode.

        Raises:
            RuntimeError: An encoder failed, or a video has not exactly one picture per row.
        """
        columns = {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}
        videos = {
            key: (encoder.path, encoder.finish(len(self._rows)))
            for key, encoder in self._encoders.items()
        }
        task = self._recording.task_of(episode.start_info)
        self._rows, self._encoders = [], {}
        extra = self._recording.describe(episode)
        self._recorded = EncodedEpisode(columns, videos, task, extra)

    def take(self) -> EncodedEpisode | None:
        """Hands over the episode that has ended, once; None if there is none."""
        recorded, self._recorded = self._recorded, None
        return recorded

    def abort(self) -> None:
        """Forgets the episode in hand."""
        for encoder in self._encoders.values():
            encoder.cancel()
        self._rows, self._encoders = [], {}

    def close(self) -> None:
        """Forgets the episode in hand."""
        self.abort()

    def _check(self, row: dict[str, np.ndarray]) -> None:
        features = self._recording.features
        if row.keys() != features.keys():
            raise ValueError(f"a row must have the columns {sorted(features)}, got {sorted(row)}")
        wrong = [
            f"{key} {value.shape}, expected {features[key].shape}"
            for key, value in row.items()
            if value.shape != features[key].shape
        ]
        if wrong:
            raise ValueError(f"values of the wrong shape: {'; '.join(wrong)}")
