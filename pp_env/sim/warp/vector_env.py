"""`WarpVectorEnv`: thousands of environments on one GPU, stepped by one launch."""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# (Warp's kernels, arrays and structs have types of their own)

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import warp as wp
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from pp_env import panda, task
from pp_env.config import PickPlaceConfig
from pp_env.control import CONTROL_MODES
from pp_env.env import PickPlaceEnv, checked_config
from pp_env.layout import (
    ENVIRONMENT_STATE,
    GOAL,
    GOAL_OBSERVATION,
    OBSERVATION,
    Layout,
)
from pp_env.names import Names
from pp_env.sim import SIMULATORS
from pp_env.sim.api import InitialState
from pp_env.sim.warp import kernels
from pp_env.sim.warp.renderer import BatchRenderer
from pp_env.sim.warp.worlds import StartTable, WarpWorlds, to_host
from pp_env.task import CONDITIONS
from pp_env.vector_env import (
    Infos,
    autoreset_mode_name,
    batched_column,
    checked_batch,
    checked_reset_mask,
    env_seeds,
    require_new_gymnasium,
    require_positive,
    set_autoreset_mode,
)

CONTROL_MODES_ON_GPU = ("joint_pos", "joint_delta")
_NUM_STARTS = 4096
StartOptions = Callable[[np.random.Generator], dict[str, Any] | None]

# Which conditions each number of `unmet` stands for.
_UNMET = np.array(
    [
        Names.of(name for k, name in enumerate(CONDITIONS) if bits >> k & 1)
        for bits in range(1 << len(CONDITIONS))
    ],
    dtype=object,
)


class WarpVectorEnv(VectorEnv):
    """A vector of `PickPlaceEnv`s whose physics, rules and resets are kernels on one GPU.

    Spaces, rewards, `info` and the meaning of arguments are those of
    `pp_env.vector_env.PickPlaceVectorEnv`, numbers in float32. What differs:

    - A seed gives each environment the same first episode as there; the following ones are drawn,
      on the device, from `num_starts` starts that were sampled when the seed was given.
    - The same seed and actions give numbers that agree to about 1e-3, not bit for bit.
    - Actions are joint targets or their changes; sensor noise has the same size, but other values.
    - `reset` with a mask and without a seed or options takes no time on the host, as autoreset.

    Args:
        num_envs: Number of environments.
        max_episode_steps: Number of steps after which an episode is truncated; None is never.
        autoreset_mode: "NextStep", "SameStep" or "Disabled".
        config: Of every environment, see `PickPlaceEnv`.
        device: Name of Warp's device; None is the first NVIDIA GPU.
        num_starts: Number of starts from which later episodes are drawn.
        start_options: Function of a generator that returns the options of `reset` for one of these
            starts, or None; for a curriculum.
        arguments: Of `PickPlaceEnv`: `obs_type`, `control_mode`, `reward_type`, `render_mode` and
            `terminate_on_success`.

    Attributes:
        device: Name of Warp's device.
        obs_type: As given.
        worlds: The physics.
        actions: (num_envs, action size) float32 on the device: what `launch_step` applies.
        outputs: By name, what a step writes on the device, beside `outcome`.
        outcome: Rewards and ends, on the device.
        steps: (num_envs,) int32 on the device: since each episode began.

    Raises:
        ValueError: An argument is unknown, out of range, or not for a GPU.
        RuntimeError: There is no NVIDIA GPU, or Gymnasium is older than 1.0.
    """

    closed = True  # until all is made: some versions of Gymnasium close half-made environments

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: Any = "NextStep",
        config: PickPlaceConfig | Mapping[str, Any] | None = None,
        device: str | None = None,
        num_starts: int = _NUM_STARTS,
        start_options: StartOptions | None = None,
        **arguments: Any,
    ) -> None:
        require_new_gymnasium()
        require_positive(
            num_envs=num_envs, max_episode_steps=max_episode_steps, num_starts=num_starts
        )
        self._autoreset_mode = autoreset_mode_name(autoreset_mode)
        self._config = checked_config(config, "warp")
        template = PickPlaceEnv(lambda _: _NO_SIMULATOR, config=self._config, **arguments)
        _require_possible(template)
        self.num_envs = num_envs
        self._set_spaces(template)
        self._template, self.obs_type = template, template.obs_type
        self._num_starts, self._start_options = num_starts, start_options or (lambda _: None)
        self._step_limit = max_episode_steps or 0
        self._ends_at_success = arguments.get("terminate_on_success", True)
        needs_images = template.obs_type.startswith("pixels") or template.render_mode is not None
        self.worlds = WarpWorlds(
            self._config, num_envs, device, needs_images, num_envs + num_starts
        )
        self.device = self.worlds.device
        self._renderer = BatchRenderer(self.worlds) if needs_images else None
        self._generators: list[Any] = [None] * num_envs
        self._seed_numbers = np.zeros(num_envs, dtype=np.int32)
        self._table: StartTable | None = None
        self._columns: dict[str, np.ndarray] = {}
        with wp.ScopedDevice(self.device):
            self._make_buffers()
        self._run_step: Callable[[], None] | None = None
        self.closed = False

    def _set_spaces(self, env: PickPlaceEnv) -> None:
        self.metadata = dict(env.metadata)
        set_autoreset_mode(self, self._autoreset_mode)
        self.render_mode = env.render_mode
        self.single_action_space = env.action_space
        self.single_observation_space = env.observation_space
        self.action_space = batch_space(env.action_space, self.num_envs)
        self.observation_space = batch_space(env.observation_space, self.num_envs)

    def _make_buffers(self) -> None:
        count = self.num_envs
        layout = CONTROL_MODES[self._template.control_mode].layout
        bounds = (layout.low, layout.high, panda.JOINT_LOWER, panda.JOINT_UPPER)
        self._bounds = [wp.array(bound, dtype=wp.float32) for bound in bounds]
        self.actions = wp.zeros((count, layout.size), dtype=wp.float32)
        self.applied = wp.zeros((count, layout.size), dtype=wp.float32)
        self.clipped = wp.zeros(count, dtype=wp.bool)
        self.outcome = kernels.Outcome()
        self.outcome.reward = wp.zeros(count, dtype=wp.float32)
        self.outcome.terminated = wp.zeros(count, dtype=wp.bool)
        self.outcome.truncated = wp.zeros(count, dtype=wp.bool)
        self._ended = wp.zeros(count, dtype=wp.bool)
        self._seed, self._episode = wp.zeros(count, dtype=wp.int32), wp.zeros(count, dtype=wp.int32)
        commands = self._commands = kernels.Commands()
        longest = self._config.randomization.action_delay[1]
        commands.last = wp.zeros((count, 8), dtype=wp.float32)
        commands.queue = wp.zeros((count, longest + 1, 8), dtype=wp.float32)
        commands.steps = wp.zeros(count, dtype=wp.int32)
        commands.delay = wp.zeros(count, dtype=wp.int32)
        self.steps = commands.steps
        self._vectors = {name: _Vector(layout, count) for name, layout in _layouts(self.obs_type)}
        self._truth = _Vector(ENVIRONMENT_STATE, count)
        self.outputs = self._make_outputs()
        same_step = self._autoreset_mode == "SameStep"
        self._last = {k: wp.zeros_like(array) for k, array in self.outputs.items() if same_step}

    def _make_outputs(self) -> dict[str, wp.array]:
        """Return what is read after a step, by name."""
        seen = self.worlds.seen
        images = {} if self._renderer is None else self._renderer.images
        return {
            "start": self.worlds.start,
            "values": seen.values,
            "unmet": seen.unmet,
            "distance": seen.distance,
            "truth": self._truth.out,
            "applied": self.applied,
            "clipped": self.clipped,
            **{f"vector/{name}": vector.out for name, vector in self._vectors.items()},
            **{f"image/{name}": image for name, image in images.items() if self._shows_images},
        }

    @property
    def _shows_images(self) -> bool:
        return self.obs_type.startswith("pixels")

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Infos]:
        """Start an episode in every environment, or in those of `options["reset_mask"]`.

        Args:
            seed: Seed of the first environment; the others get the following numbers. Or one seed
                per environment.
            options: Options of `PickPlaceEnv.reset`, for every environment.

        Raises:
            ValueError: An option, the seeds or the mask do not fit.
        """
        options = dict(options or {})
        was_reset = [bool(self._columns)] * self.num_envs
        mask = checked_reset_mask(options.pop("reset_mask", None), was_reset)
        if not self._columns or seed is not None or options:
            self._sample_starts(mask, env_seeds(seed, self.num_envs), options or None)
        else:
            self.worlds.chosen.assign(mask)
            self._choose_starts()
        self._ended.assign(self._ended.numpy() & ~mask)
        self.worlds.chosen.assign(mask)
        self._begin_chosen()
        self.worlds.chosen.fill_(True)
        self._see()
        outputs = _read(self.outputs)
        return self._observation(outputs), self._infos(outputs, mask)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Apply actions (num_envs, action size) for one control period.

        Raises:
            ValueError: The actions have the wrong shape or are not finite.
            RuntimeError: `reset` was not called, or an environment that has ended was not reset.
        """
        if not self._columns:
            raise RuntimeError("step needs a started episode; call reset first")
        starting = to_host(self._ended)
        layout = CONTROL_MODES[self._template.control_mode].layout
        self.actions.assign(checked_batch(actions, layout, starting, self._autoreset_mode))
        self.launch_step()
        outputs, outcome = _read(self.outputs), self.outcome
        terminated, truncated = to_host(outcome.terminated), to_host(outcome.truncated)
        infos = self._infos(outputs, np.ones(self.num_envs, dtype=np.bool_))
        if self._last and (terminated | truncated).any():
            infos = {**self._final(terminated | truncated), **infos}
        reward = outcome.reward.numpy().astype(np.float64)
        return self._observation(outputs), reward, terminated, truncated, infos

    def launch_step(self) -> None:
        """Apply the actions that are in `actions` on the device, without waiting for it."""
        assert self._run_step is not None, "reset was not called"
        self._run_step()

    def to_torch(self) -> Any:
        """Return a `TorchView` of these environments: tensors on the device, nothing is copied.

        Raises:
            ImportError: PyTorch is not installed.
        """
        from pp_env.sim.warp.torch_view import TorchView

        return TorchView(self)

    def render(self) -> tuple[np.ndarray, ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the image of each environment's first camera, (H, W, 3) uint8 RGB."""
        if self.render_mode != "rgb_array" or self._renderer is None:
            return None
        self._renderer.render()
        return tuple(to_host(self._renderer.images[self._config.cameras[0].name]))

    def close_extras(self, **_: Any) -> None:
        """Free what the host holds; `close` calls it once."""
        self.worlds.close()

    # What a step launches

    def _step(self) -> None:
        worlds, template, commands = self.worlds, self._template, self._commands
        worlds.chosen.fill_(True)
        wp.launch(
            kernels.command,
            self.num_envs,
            [template.control_mode == "joint_delta", self.actions, *self._bounds, commands,
             self.applied, self.clipped, worlds.command],
            device=self.device,
        )  # fmt: skip
        worlds.advance()
        worlds.observe()
        if self._last:
            self._see()
            for name, array in self.outputs.items():
                wp.copy(self._last[name], array)
        wp.launch(
            kernels.score,
            self.num_envs,
            [template.reward_type == "dense", template.obs_type == "goal", self._ends_at_success,
             self._step_limit, self._autoreset_mode == "NextStep",
             self._autoreset_mode == "SameStep", worlds.rules, worlds.scene, worlds.state,
             worlds.seen, commands.steps, self._ended, self.outcome, worlds.chosen],
            device=self.device,
        )  # fmt: skip
        if self._autoreset_mode != "Disabled":
            self._choose_starts()
            self._begin_chosen()
        worlds.chosen.fill_(True)
        self._see()

    def _choose_starts(self) -> None:
        wp.launch(
            kernels.choose_starts,
            self.num_envs,
            [self.worlds.chosen, self._seed, self.num_envs, self._num_starts, self._episode,
             self.worlds.start],
            device=self.device,
        )  # fmt: skip

    def _begin_chosen(self) -> None:
        worlds = self.worlds
        worlds.begin()
        wp.launch(
            kernels.begin_commands,
            self.num_envs,
            [worlds.chosen, worlds.start, worlds.starts, self._commands, self.applied,
             self.clipped],
            device=self.device,
        )  # fmt: skip
        worlds.observe()

    def _see(self) -> None:
        """Make the chosen worlds' observations."""
        worlds = self.worlds
        for vector in (*self._vectors.values(), self._truth):
            wp.launch(
                kernels.pack,
                vector.out.shape,
                [worlds.chosen, worlds.seen.values, vector.columns, vector.low, vector.high,
                 worlds.start, worlds.starts, self._seed, self._commands.steps, vector.out],
                device=self.device,
            )  # fmt: skip
        if self.obs_type.startswith("pixels") and self._renderer is not None:
            self._renderer.render()

    # Between host and device

    def _sample_starts(
        self, mask: np.ndarray, seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> None:
        """Sample a start for each environment of the mask, as a single one does with its seed.

        The first time, the starts that later episodes are drawn from are sampled, too, and again
        whenever all environments are given seeds.
        """
        initials: list[InitialState] = []
        for i in np.flatnonzero(mask).tolist():
            if seeds[i] is not None or self._generators[i] is None:
                self._generators[i], number = gym.utils.seeding.np_random(seeds[i])
                self._seed_numbers[i] = int(number) & 0x7FFFFFFF
            initials.append(self._sample(self._generators[i], options))
        which = np.flatnonzero(mask)
        is_new = self._table is None or None not in seeds
        if mask.all() and is_new:
            rng = np.random.default_rng([int(self._seed_numbers[0]), 4])
            initials += [
                self._sample(rng, self._start_options(rng)) for _ in range(self._num_starts)
            ]
            which = np.arange(self.num_envs + self._num_starts)
        self._seed.assign(self._seed_numbers)
        self._take(which, initials)
        if is_new:  # after what `_take` runs to compile, which may have ended episodes
            self._episode.assign(np.where(mask, 0, self._episode.numpy()).astype(np.int32))
        own = np.arange(self.num_envs, dtype=np.int32)
        self.worlds.start.assign(np.where(mask, own, self.worlds.start.numpy()))

    def _sample(self, rng: np.random.Generator, options: dict[str, Any] | None) -> InitialState:
        start = task.sample_start(rng, self._config, options)
        variation = task.sample_variation(rng, self._config, start)
        return task.initial_state(start, self._config, variation)

    def _take(self, which: np.ndarray, initials: list[InitialState]) -> None:
        """Have the starts of these numbers, on host and device."""
        new, columns = self.worlds.tabulate(initials), self._describe(initials)
        if self._table is None:
            self._table, self._columns = new, columns
        else:
            for name, column in columns.items():
                self._columns[name][which] = column
            self._table = self._table.replaced(which, new)
        self.worlds.load(self._table)
        if self._run_step is None:  # what is run for this, all worlds begin anew after it
            self._run_step = self.worlds.capture(self._step)

    def _describe(self, initials: list[InitialState]) -> dict[str, np.ndarray]:
        """Return the part of `info` that is the same at every step of an episode, row by row."""
        pool, config = self._config.object_pool, self._config
        rows = []
        for initial in initials:
            target, *others = (pool[placed.pool_index] for placed in initial.placed)
            rows.append(
                {
                    "object": target.name,
                    "distractors": Names.of(obj.name for obj in others),
                    "task": task.language_instruction(target, config),
                    **task.grasp_requirements(initial, config),
                    "object_rgb": initial.object_rgb,
                    "rest_z": config.rest_z_of(target),
                    **({} if initial.variation is None else {"variation": initial.variation}),
                }
            )
        return {name: batched_column([row[name] for row in rows]) for name in rows[0]}

    def _observation(self, outputs: dict[str, np.ndarray]) -> Any:
        vectors = {name: outputs[f"vector/{name}"] for name in self._vectors}
        if list(vectors) == ["state"]:
            return vectors["state"]
        if self.obs_type == "goal":
            values = outputs["values"]
            desired = values[:, kernels.COLUMNS["goal_pos"]].copy()
            desired[:, 2] = self._columns["rest_z"][outputs["start"]]
            goals = {
                "achieved_goal": values[:, kernels.COLUMNS["object_pos"]], "desired_goal": desired,
            }  # fmt: skip
            return {**vectors, **{name: GOAL.clip(goal) for name, goal in goals.items()}}
        images = {
            name.removeprefix("image/"): image
            for name, image in outputs.items()
            if name.startswith("image/")
        }
        return {**({"pixels": images} if images else {}), **vectors}

    def _infos(self, outputs: dict[str, np.ndarray], mask: np.ndarray) -> Infos:
        """Return the batched `info` of the environments of the mask, without a loop over them."""
        values, start = outputs["values"].astype(np.float64), outputs["start"]
        at = {name: values[:, where] for name, where in kernels.COLUMNS.items()}
        infos = {
            **{name: column[start] for name, column in self._columns.items() if name != "rest_z"},
            "is_success": outputs["unmet"] == 0,
            "is_grasped": at["is_grasped"][:, 0] > 0,
            "object_pos": at["object_pos"].copy(),
            "object_quat": at["object_quat"].copy(),
            "goal_pos": at["goal_pos"].copy(),
            "distance": outputs["distance"].astype(np.float64),
            "unmet_conditions": _UNMET[outputs["unmet"]],
            "environment_state": outputs["truth"],
            "action": outputs["applied"],
            "action_clipped": outputs["clipped"],
        }
        batched: Infos = {}
        for name, column in infos.items():
            if not mask.all():
                column[~mask] = None if column.dtype == object else 0
            batched[name], batched[f"_{name}"] = column, mask.copy()
        return batched

    def _final(self, ended: np.ndarray) -> Infos:
        """Return the last observations and infos of the episodes that ended in this step."""
        last = _read(self._last)
        batch = self._observation(last)
        observations = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended).tolist():
            observations[i] = _take_one(batch, i)
        return {
            "final_obs": observations, "_final_obs": ended.copy(),
            "final_info": self._infos(last, ended), "_final_info": ended.copy(),
        }  # fmt: skip


class _Vector:
    """One vector of the observation on the device, (n, layout.size), and what it is made of."""

    def __init__(self, layout: Layout, count: int) -> None:
        self.columns = wp.array(kernels.pick_columns(layout), dtype=wp.int32)
        self.low = wp.array(layout.low, dtype=wp.float32)
        self.high = wp.array(layout.high, dtype=wp.float32)
        self.out = wp.zeros((count, layout.size), dtype=wp.float32)


_NO_SIMULATOR: Any = None  # of the environment of which only spaces and arguments are used


def _layouts(obs_type: str) -> list[tuple[str, Layout]]:
    """Return the vectors of an observation, by their key in it."""
    if obs_type == "state":
        return [("state", OBSERVATION)]
    if obs_type == "goal":
        return [("observation", GOAL_OBSERVATION)]
    parts = {"environment_state": ENVIRONMENT_STATE, "agent_pos": OBSERVATION}
    return [(name, layout) for name, layout in parts.items() if name in obs_type]


def _read(arrays: Mapping[str, wp.array]) -> dict[str, np.ndarray]:
    """Return copies on the host."""
    return {name: to_host(array) for name, array in arrays.items()}


def _take_one(batch: Any, i: int) -> Any:
    """Return the i-th observation of a batch."""
    if isinstance(batch, dict):
        return {name: _take_one(part, i) for name, part in batch.items()}
    return batch[i].copy()


def _require_possible(env: PickPlaceEnv) -> None:
    """Check that the GPU can do what is asked.

    Raises:
        ValueError: It cannot.
    """
    if env.control_mode not in CONTROL_MODES_ON_GPU:
        raise ValueError(
            f"simulator='warp' takes control_mode {list(CONTROL_MODES_ON_GPU)}, got "
            f"{env.control_mode!r}; simulator='mujoco' takes it"
        )
    if env.image_types != ("rgb",):
        raise ValueError(
            f"simulator='warp' renders 'rgb', got image_types {list(env.image_types)}; "
            "simulator='mujoco' renders them"
        )
    unable = set(SIMULATORS["warp"].not_randomized) & set(env.config.randomization.active)
    if unable:
        raise ValueError(
            f"simulator='warp' cannot randomize {sorted(unable)}; leave them out, or take "
            "simulator='mujoco'"
        )
