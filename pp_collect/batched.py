"""Attempts of a collection, many at once on one GPU: first states, then images of successes.

Every attempt runs the program that it runs alone, in `EpisodeRunner`; only the physics of all of
them is one launch (`pp_env.sim.warp.lockstep`). Other processes encode the images of one episode
while the GPU renders those of the next.
"""

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pp_collect.factory import make_expert
from pp_collect.options import SessionOptions
from pp_collect.schema import make_schema
from pp_collect.session import EpisodeOutcome, EpisodeRunner, RolloutResult, exhaust
from pp_env import PickPlaceEnv
from pp_env.config import PickPlaceConfig
from pp_env.sim.warp.lockstep import Lockstep, LockstepSimulator
from pp_env.sim.warp.renderer import EpisodeRenderer
from pp_recorder.dataset.stats import ImageStats
from pp_recorder.parallel.encoders import EncoderPool, Images, UnseenEpisode
from pp_recorder.parallel.processes import Died
from pp_recorder.rollout import EpisodeSink
from pp_recorder.sinks import EpisodeBuffer

_RENDERED_AT_ONCE = 64  # states, about: enough for a GPU, and few enough for its memory


class BatchWorker:
    """Runs attempts in a worker process, many at once, and has their episodes encoded in others.

    A `pp_recorder.parallel.processes.Worker` whose index is a range of attempts.

    Args:
        options: Of the collection.
        config: Of the environment.
        num_worlds: Number of attempts at once.
        num_encoders: Number of processes that encode.
        scratch: Folder for videos while they grow; default the system's.

    Raises:
        ImportError: The extra [gpu] is not installed.
        RuntimeError: There is no NVIDIA GPU.
    """

    def __init__(
        self,
        options: SessionOptions,
        config: PickPlaceConfig,
        num_worlds: int,
        num_encoders: int,
        scratch: Path | None = None,
    ) -> None:
        self._options, self._config = options, config
        self._lockstep = Lockstep(config, num_worlds)
        length = make_expert(options, config).num_steps
        launches = math.ceil(length / _RENDERED_AT_ONCE)  # as full as can be
        self._renderer = (
            EpisodeRenderer(config, math.ceil(length / launches), ImageStats.STRIDE)
            if options.record_cameras
            else None
        )
        self._runners = [self._make_runner(each) for each in self._lockstep.simulators]
        self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="worker-")
        width, height = config.render.size
        cameras = config.cameras if options.record_cameras else ()
        self._encoders = EncoderPool(
            partial(make_schema, options, config, provenance={}),
            Path(self._folder.name),
            {camera.name: (height, width) for camera in cameras},
            length,
            num_encoders,
        )

    def run(self, index: range) -> list[RolloutResult | Died]:
        """Run the attempts of a range."""
        sinks = [EpisodeBuffer() for _ in index]
        programs = [
            partial(_run_attempt, self._runners[k], attempt, sinks[k])
            for k, attempt in enumerate(index)
        ]
        outcomes = self._lockstep.run(programs)
        results: list[RolloutResult | Died] = [RolloutResult(each, None) for each in outcomes]
        kept = {k: unseen for k in range(len(index)) if (unseen := self._kept(k, outcomes, sinks))}
        for k, encoded in zip(kept, self._encoders.encode(list(kept.values())), strict=True):
            died = isinstance(encoded, Died)
            results[k] = encoded if died else RolloutResult(outcomes[k], encoded)
        return results

    def close(self) -> None:
        """Free the worlds, end the encoders and delete the scratch folder."""
        self._encoders.close()
        self._lockstep.close()
        if self._renderer is not None:
            self._renderer.close()
        self._folder.cleanup()

    def _make_runner(self, simulator: LockstepSimulator) -> EpisodeRunner:
        env = PickPlaceEnv(
            lambda _: simulator,
            config=self._config,
            terminate_on_success=self._options.policy is not None,  # as in `make_env`
        )
        expert = make_expert(self._options, self._config)
        return EpisodeRunner(self._options, self._config, expert, env)

    def _kept(
        self, k: int, outcomes: Sequence[EpisodeOutcome], sinks: Sequence[EpisodeBuffer]
    ) -> UnseenEpisode | None:
        """Return the episode of the k-th world, if it is to be kept."""
        episode, steps = sinks[k].episode, sinks[k].steps
        if episode is None or not (outcomes[k].success or self._options.keep == "all"):
            return None
        return UnseenEpisode(episode, steps, partial(self._draw, self._lockstep.simulators[k]))

    def _draw(self, simulator: LockstepSimulator, images: Images) -> None:
        """Render the states of an episode's steps."""
        if self._renderer is None or simulator.initial is None:
            return
        (length,) = {len(each.planes) for each in images.values()}
        poses = simulator.poses[-length - 1 : -1]  # after a prelude, and before the last state
        self._renderer.render(simulator.initial, poses, images)


def _run_attempt(runner: EpisodeRunner, index: int, sink: EpisodeSink) -> EpisodeOutcome:
    return exhaust(runner.run(index, [sink]))
