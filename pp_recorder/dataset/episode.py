"""One recorded episode before it is part of a dataset, and the sink that records it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import DatasetSchema
from pp_recorder.dataset.stats import Stats
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.rollout import Episode, EpisodeSink, Step

if TYPE_CHECKING:  # 40 MB, which the processes that record do without
    import pyarrow as pa


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode with everything but its index in a dataset.

    Attributes:
        columns: Per column of numbers an array (length, size); without the bookkeeping columns.
        videos: Per camera, a finished file that may be moved away, and its image statistics.
        tasks: The language instructions: one, or several where others have split the episode.
        extra: The extra columns of `meta/episodes`.
        task_numbers: Which of them each row has, (length,); default the first.
        kept: Columns of others than vectors of numbers, as they are stored, with their statistics.
    """

    columns: dict[str, np.ndarray]
    videos: dict[str, tuple[Path, Stats]]
    tasks: tuple[str, ...]
    extra: dict[str, Any]
    task_numbers: np.ndarray | None = None
    kept: "dict[str, tuple[pa.ChunkedArray, Stats]]" = field(default_factory=dict)


@dataclass(frozen=True)
class EpisodePayload:
    """An encoded episode with the contents of its files, to be sent to another process or machine.

    Attributes:
        episode: The episode, whose files are gone.
        contents: The video files, by camera.
    """

    episode: EncodedEpisode
    contents: dict[str, bytes]

    @classmethod
    def pack(cls, episode: EncodedEpisode) -> "EpisodePayload":
        """Read the episode's files, and delete them."""
        contents = {camera: path.read_bytes() for camera, (path, _) in episode.videos.items()}
        for path, _ in episode.videos.values():
            path.unlink()
        return cls(episode, contents)

    def unpack(self, folder: Path) -> EncodedEpisode:
        """Write the files into a folder, and return the episode with them."""
        videos = {}
        for camera, content in self.contents.items():
            path = folder / f"{camera}.mp4"
            path.write_bytes(content)
            videos[camera] = path, self.episode.videos[camera][1]
        return replace(self.episode, videos=videos)


class EpisodeRecorder(EpisodeSink):
    """A sink that encodes one episode after another; `take` hands over each one that has ended.

    Args:
        folder: Folder of the unfinished videos; it exists when an episode begins.
        schema: The contents of an episode.
    """

    def __init__(self, folder: Path, schema: DatasetSchema) -> None:
        self._recorded: EncodedEpisode | None = None
        self._folder = folder
        self._schema = schema
        self._rows: list[dict[str, np.ndarray]] = []
        self._encoders: dict[str, VideoEncoder] = {}

    def begin(self, seed: int) -> None:
        """Start an episode."""
        self._recorded, self._rows = None, []
        self._encoders = {
            key: VideoEncoder(self._folder / f"{key}.mp4", self._schema.codec, self._schema.fps)
            for key in self._schema.cameras
        }

    def add(self, step: Step) -> None:
        """Record one step; wait while the encoders are behind.

        Raises:
            ValueError: A value does not have the shape that its feature declares.
            RuntimeError: An encoder failed.
        """
        row = self._schema.row(step)
        self._check(row)
        for key, encoder in self._encoders.items():
            encoder.add(row.pop(key))
        row[keys.REWARD] = np.array([step.reward])
        row[keys.DONE] = np.array([step.done])
        row[keys.SUCCESS] = np.array([step.success])
        self._rows.append(row)

    def end(self, episode: Episode) -> None:
        """Complete the episode.

        Raises:
            RuntimeError: An encoder failed, or a video does not hold exactly one image per row.
        """
        columns = {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}
        videos = {
            key: (encoder.path, encoder.finish(len(self._rows)))
            for key, encoder in self._encoders.items()
        }
        tasks = (self._schema.task_of(episode.start_info),)
        self._rows, self._encoders = [], {}
        extra = self._schema.describe(episode)
        self._recorded = EncodedEpisode(columns, videos, tasks, extra)

    def take(self) -> EncodedEpisode | None:
        """Hand over the episode that has ended, once; None if there is none."""
        recorded, self._recorded = self._recorded, None
        return recorded

    def abort(self) -> None:
        """Discard the current episode."""
        for encoder in self._encoders.values():
            encoder.cancel()
        self._rows, self._encoders = [], {}

    def close(self) -> None:
        """Discard the current episode."""
        self.abort()

    def _check(self, row: dict[str, np.ndarray]) -> None:
        """Raise a `ValueError` if a row does not have the columns and shapes of the schema."""
        features = self._schema.features
        if row.keys() != features.keys():
            raise ValueError(f"a row must have the columns {sorted(features)}, got {sorted(row)}")
        wrong = [
            f"{key} {value.shape}, expected {features[key].shape}"
            for key, value in row.items()
            if value.shape != features[key].shape
        ]
        if wrong:
            raise ValueError(f"values of the wrong shape: {'; '.join(wrong)}")
        for key in self._schema.cameras:
            if row[key].dtype != np.uint8:
                raise ValueError(f"pictures must be uint8, {key} has {row[key].dtype}")
