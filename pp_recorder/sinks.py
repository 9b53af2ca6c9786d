"""Small sinks: a filter, a buffer, a progress bar, a video; and log messages above the bar."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.rollout import Episode, EpisodeSink, Step

_LOG = logging.getLogger("pp_recorder")
_REFRESH_INTERVAL = 0.5  # s


class SuccessOnly(EpisodeSink):
    """A filter in front of another sink that aborts the episodes without success.

    Args:
        sink: The receiver of everything else.
    """

    def __init__(self, sink: EpisodeSink) -> None:
        self._sink = sink

    def begin(self, seed: int) -> None:
        """Start an episode in the other sink."""
        self._sink.begin(seed)

    def add(self, step: Step) -> None:
        """Pass the step to the other sink."""
        self._sink.add(step)

    def end(self, episode: Episode) -> None:
        """Commit a success, discard a failure."""
        if episode.success:
            self._sink.end(episode)
        else:
            self._sink.abort()

    def abort(self) -> None:
        """Discard the episode in the other sink."""
        self._sink.abort()

    def close(self) -> None:
        """Close the other sink."""
        self._sink.close()


class EpisodeBuffer(EpisodeSink):
    """A sink that holds an episode in memory."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.episode: Episode | None = None

    def add(self, step: Step) -> None:
        """Append the step."""
        self.steps.append(step)

    def end(self, episode: Episode) -> None:
        """Hold the outcome."""
        self.episode = episode


class TqdmHandler(logging.Handler):
    """A logging handler that writes the bare message on stderr, above a progress bar if any."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        tqdm.write(self.format(record), file=sys.stderr)


def setup_logging() -> None:
    """Show the recorder's log messages on stderr; for the `main` of a command line."""
    if not _LOG.handlers:
        _LOG.addHandler(TqdmHandler())
        _LOG.setLevel(logging.INFO)
        _LOG.propagate = False


@contextmanager
def moving(bar: tqdm) -> Iterator[tqdm]:
    """Draw a bar twice a second while a terminal shows it, and close it at the end.

    So nobody has to wonder whether a program hangs, however long a step or its start takes.
    """
    ended = threading.Event()

    def redraw() -> None:
        while not ended.wait(_REFRESH_INTERVAL):
            bar.refresh()

    thread = threading.Thread(target=redraw, name="progress", daemon=True)
    try:
        if sys.stderr.isatty():
            thread.start()
        yield bar
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
        bar.close()


class ProgressBar(EpisodeSink):
    """A progress bar with the episode, the success rate so far, frames per second and ETA.

    Args:
        num_episodes: Target number of episodes.
        frames_per_episode: Typical length, for the estimate of the time left.
        kept: Number of episodes recorded before.
    """

    def __init__(self, num_episodes: int, frames_per_episode: int, kept: int = 0) -> None:
        self._num_episodes = num_episodes
        self._frames_per_episode = frames_per_episode
        bar = tqdm(
            total=num_episodes * frames_per_episode,
            initial=kept * frames_per_episode,
            unit="frame",
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log keeps every line
        )
        self._until_closed = ExitStack()
        self._bar = self._until_closed.enter_context(moving(bar))

    def start_from(self, kept: int) -> None:
        """Count time and frames from here, after a start that was slow.

        Args:
            kept: Number of episodes recorded before.
        """
        bar = self._bar
        bar.initial = bar.n = bar.last_print_n = kept * self._frames_per_episode
        bar.unpause()

    def show(self, kept: int, successes: int, attempts: int) -> None:
        """Update the bar between two episodes.

        Args:
            kept: Episodes in the dataset.
            successes: Successful attempts.
            attempts: All attempts.
        """
        self._bar.update(kept * self._frames_per_episode - self._bar.n)
        at = f"episode {min(kept + 1, self._num_episodes)}/{self._num_episodes}"
        joins = kept >= self._num_episodes  # which takes up to 10 ms for an episode
        self._bar.set_description(f"{at}, joining files" if joins else at, refresh=joins)
        if attempts:
            self._bar.set_postfix(success=f"{successes / attempts:.0%}", refresh=False)

    def add(self, step: Step) -> None:
        """Count a frame."""
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is and end its line; a second call has no effect."""
        self._bar.desc = self._bar.desc.replace(", joining files", "")
        self._until_closed.close()


class SideBySide(EpisodeSink):
    """A video of one episode with the images of all cameras, left to right.

    Args:
        path: The mp4 file; an aborted episode leaves none.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        self._encoder = VideoEncoder(path, "h264", fps)

    def add(self, step: Step) -> None:
        """Add the images of the observation."""
        self._encoder.add(np.hstack(list(step.observation["pixels"].values())))

    def end(self, episode: Episode) -> None:
        """Complete the file."""
        self._encoder.finish(episode.length)

    def abort(self) -> None:
        """Delete the file."""
        self._encoder.cancel()
