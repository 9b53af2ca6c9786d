"""Collection inside a program with its own main loop and environment, without the web."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from pp_collect.factory import make_expert
from pp_collect.options import SessionOptions
from pp_collect.session import CollectionSession
from pp_recorder.command_line import from_names


class CollectionProgress(NamedTuple):
    """The progress of a collection.

    Attributes:
        episodes: Number of episodes in the dataset.
        frames: Number of frames in the dataset.
        attempts: Number of episodes that ran to their end, kept or not.
        successes: Number of attempts that succeeded.
    """

    episodes: int
    frames: int
    attempts: int
    successes: int

    @classmethod
    def of(cls, collection: CollectionSession) -> "CollectionProgress":
        """Return the progress of a collection."""
        writer, stats = collection.writer, collection.stats
        return cls(writer.num_episodes, writer.num_frames, stats.attempts, stats.successes)


def run_collection_in_process(
    env: gym.Env,
    num_episodes: int,
    output: Path,
    stop_event: threading.Event | None = None,
    progress_callback: Callable[[CollectionProgress], None] | None = None,
    **options: Any,
) -> CollectionProgress:
    """Run a collection on the calling thread, which must be the simulator's.

    Args:
        env: As for `make_collection`.
        num_episodes: Number of episodes in the finished dataset.
        output: The dataset's folder.
        stop_event: When set, the collection drops the current episode and ends.
        progress_callback: Called on the calling thread after every frame.
        options: As for `make_collection`.

    Returns:
        The final progress; after a stop it has fewer than `num_episodes` episodes.

    Raises:
        CollectionError: Too many attempts in a row have failed.
    """
    collection = make_collection(env, num_episodes, output, **options)
    try:
        while not (stop_event and stop_event.is_set()) and collection.step():
            if progress_callback:
                progress_callback(CollectionProgress.of(collection))
        collection.close()
    finally:
        collection.release()
    return CollectionProgress.of(collection)


def make_collection(
    env: gym.Env, num_episodes: int, output: Path, **options: Any
) -> CollectionSession:
    """Return a collection; `step` records one frame, `close` ends it, `release` is for errors.

    Args:
        env: A FrankaPickPlace environment with `obs_type` "pixels_agent_pos", or "state" to
            record no images, `terminate_on_success=False` and no step limit.
        num_episodes: Number of episodes in the finished dataset.
        output: The dataset's folder: absent, empty, or a dataset to resume.
        options: Other options of collect.py, such as `seed`, `steps_per_segment`, `noise_rad`,
            `keep`, `resume` and `simulator`, with `_` for `-`. The environment fixes those of the
            scene.

    Raises:
        ValueError: An option is unknown or out of range, or the environment is not as above.
        FileExistsError: The output is in use, or not empty and not to be resumed.
    """
    unwrapped: Any = env.unwrapped
    if unwrapped.obs_type not in ("pixels_agent_pos", "state"):
        raise ValueError(
            "env must have obs_type 'pixels_agent_pos', or 'state' to record no pictures, got "
            f"{unwrapped.obs_type!r}"
        )
    given = {name: value for name, value in options.items() if value is not None}
    no_cameras = unwrapped.obs_type == "state"
    values = {**given, "num_episodes": num_episodes, "output": output, "no_cameras": no_cameras}
    session = from_names(SessionOptions, values)
    return CollectionSession(session, unwrapped.config, make_expert(session, unwrapped.config), env)
