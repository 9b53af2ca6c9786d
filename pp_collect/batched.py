"""Attempts of a collection, many at once on one GPU: first states, then images of successes.

Every attempt runs the program that it runs alone, in `EpisodeRunner`; only the physics of all of
them is one launch (`pp_env.sim.warp.lockstep`).
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
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
from pp_recorder.dataset.episode import EpisodePayload, EpisodeRecorder
from pp_recorder.rollout import EpisodeSink, Step
from pp_recorder.sinks import EpisodeBuffer

_RENDERED_AT_ONCE = 64  # states: enough for a GPU, and few enough for its memory


class BatchWorker:
    """Runs and encodes attempts in a worker process, many at once.

    A `pp_recorder.parallel.processes.Worker` whose index is a range of attempts.

    Args:
        options: Of the collection.
        config: Of the environment.
        num_worlds: Number of attempts at once.
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
        scratch: Path | None = None,
    ) -> None:
        self._options, self._config = options, config
        self._lockstep = Lockstep(config, num_worlds)
        self._renderer = (
            EpisodeRenderer(config, _RENDERED_AT_ONCE) if options.record_cameras else None
        )
        self._runners = [self._make_runner(each) for each in self._lockstep.simulators]
        self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix="worker-")
        schema = make_schema(options, config, provenance={})
        self._recorder = EpisodeRecorder(Path(self._folder.name), schema)

    def run(self, index: range) -> list[RolloutResult]:
        """Run the attempts of a range."""
        sinks = [EpisodeBuffer() for _ in index]
        programs = [
            partial(_run_attempt, self._runners[k], attempt, sinks[k])
            for k, attempt in enumerate(index)
        ]
        outcomes = self._lockstep.run(programs)
        simulators = self._lockstep.simulators
        return [self._result(*each) for each in zip(outcomes, sinks, simulators, strict=False)]

    def close(self) -> None:
        """Free the worlds and delete the scratch folder."""
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

    def _result(
        self, outcome: EpisodeOutcome, buffer: EpisodeBuffer, simulator: LockstepSimulator
    ) -> RolloutResult:
        """Encode an attempt that is to be kept."""
        episode = buffer.episode
        if episode is None or not (outcome.success or self._options.keep == "all"):
            return RolloutResult(outcome, None)
        recorder = self._recorder
        recorder.begin(episode.seed)
        for step in self._with_images(buffer.steps, simulator):
            recorder.add(step)
        recorder.end(episode)
        encoded = recorder.take()
        return RolloutResult(outcome, None if encoded is None else EpisodePayload.pack(encoded))

    def _with_images(self, steps: Sequence[Step], simulator: LockstepSimulator) -> Iterator[Step]:
        """Yield the steps, with the images of their states if cameras are recorded."""
        if self._renderer is None or simulator.initial is None:
            yield from steps
            return
        poses = simulator.poses[-len(steps) - 1 : -1]  # after a prelude, and before the last state
        images = self._renderer.render(simulator.initial, poses)
        for step, pixels in zip(steps, images, strict=True):
            observation = {"agent_pos": step.observation, "pixels": pixels}
            yield dataclasses.replace(step, observation=observation)


def _run_attempt(runner: EpisodeRunner, index: int, sink: EpisodeSink) -> EpisodeOutcome:
    return exhaust(runner.run(index, [sink]))
