"""Small sinks that stand between the loop and a writer, or beside it."""

import logging
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.rollout import Episode, EpisodeSink, Step

_LOG = logging.getLogger("pp_recorder")


class SuccessOnly:
    """Passes on what happens, but forgets the episodes that did not succeed."""

    def __init__(self, sink: EpisodeSink) -> None:
        self._sink = sink

    def begin(self, seed: int) -> None:
        """Passes it on."""
        self._sink.begin(seed)

    def add(self, step: Step) -> None:
        """Passes it on."""
        self._sink.add(step)

    def end(self, episode: Episode) -> None:
        """Commits a success, forgets a failure."""
        if episode.success:
            self._sink.end(episode)
        else:
            self._sink.abort()

    def abort(self) -> None:
        """Passes it on."""
        self._sink.abort()

    def close(self) -> None:
        """Passes it on."""
        self._sink.close()


class TqdmHandler(logging.Handler):
    """A logging handler that writes the message alone on stderr, above a progress bar if any."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        tqdm.write(self.format(record), file=sys.stderr)


def setup_logging() -> None:
    """Show what the recorder logs on stderr; a command line calls this once."""
    if not _LOG.handlers:
        _LOG.addHandler(TqdmHandler())
        _LOG.setLevel(logging.INFO)
        _LOG.propagate = False


class ProgressBar:
    """A progress bar with the episode, the success rate so far, frames per second and ETA.

    Args:
        num_episodes: How many episodes are wanted.
        frames_per_episode: For the estimate of the time left.
        kept: Episodes that are there already.
    """

    def __init__(self, num_episodes: int, frames_per_episode: int, kept: int = 0) -> None:
        self._num_episodes = num_episodes
        self._frames_per_episode = frames_per_episode
        self._bar = tqdm(
            total=num_episodes * frames_per_episode,
            initial=kept * frames_per_episode,
            unit="frame",
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log keeps every line
        )

    def show(self, kept: int, successes: int, attempts: int) -> None:
        """Says how far it is, between two episodes."""
        self._bar.update(kept * self._frames_per_episode - self._bar.n)
        if kept < self._num_episodes:
            self._bar.set_description(f"episode {kept + 1}/{self._num_episodes}", refresh=False)
        if attempts:
            self._bar.set_postfix(success=f"{successes / attempts:.0%}", refresh=False)

    def begin(self, seed: int) -> None:
        """Nothing to do."""

    def add(self, step: Step) -> None:
        """Counts a frame."""
        self._bar.update()

    def end(self, episode: Episode) -> None:
        """Nothing to do: `show` is told what was kept."""

    def abort(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Leaves the bar as it is and ends its line."""
        self._bar.close()


class SideBySide:
    """Writes the pictures of all cameras, left to right, as one video of one episode.

    Args:
        path: The mp4 file; it is deleted if the episode is broken off.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        self._encoder = VideoEncoder(path, "h264", fps)

    def begin(self, seed: int) -> None:
        """Nothing to do."""

    def add(self, step: Step) -> None:
        """Adds the pictures of the observation."""
        self._encoder.add(np.hstack(list(step.observation["pixels"].values())))

    def end(self, episode: Episode) -> None:
        """Completes the file."""
        self._encoder.finish(episode.length)

    def abort(self) -> None:
        """Deletes the file."""
        self._encoder.cancel()

    def close(self) -> None:
        """Nothing to do."""
