"""Small sinks that stand between the loop and a writer, or beside it."""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recorder.rollout import Episode, EpisodeSink, Step
from recorder.video import VideoEncoder


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


class Progress:
    """A progress bar with the episode, the success rate so far, frames per second and ETA.

    Args:
        num_episodes: How many episodes are wanted.
        frames_per_episode: For the estimate of the time left.
        keep_failures: Whether a failed episode counts.
        kept: Episodes that are there already.
    """

    def __init__(
        self, num_episodes: int, frames_per_episode: int, keep_failures: bool, kept: int = 0
    ) -> None:
        self._num_episodes = num_episodes
        self._keep_failures = keep_failures
        self._attempts = self._successes = 0
        self._kept = kept
        self._frames_in_hand = 0
        self._bar = tqdm(
            total=num_episodes * frames_per_episode,
            initial=kept * frames_per_episode,
            unit="frame",
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log keeps every line
        )

    def begin(self, seed: int) -> None:
        """Shows the number of the episode."""
        self._frames_in_hand = 0
        self._bar.set_description(f"episode {self._kept + 1}/{self._num_episodes}")

    def add(self, step: Step) -> None:
        """Counts a frame."""
        self._frames_in_hand += 1
        self._bar.update()

    def end(self, episode: Episode) -> None:
        """Counts the episode, or takes its frames back if it is not kept."""
        self._attempts += 1
        self._successes += episode.success
        if episode.success or self._keep_failures:
            self._kept += 1
        else:
            self.abort()
        self._bar.set_postfix(success=f"{self._successes / self._attempts:.0%}")

    def abort(self) -> None:
        """Takes the frames of the episode in hand back."""
        self._bar.update(-self._frames_in_hand)
        self._frames_in_hand = 0

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
