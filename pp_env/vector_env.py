"""Many environments at once: on MuJoCo on several threads, or on another simulator that can."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from pp_env.config import PickPlaceConfig
from pp_env.control import CONTROL_MODES
from pp_env.env import Observation, PickPlaceEnv, checked_actions, checked_config
from pp_env.layout import Layout
from pp_env.sim import SIMULATORS, load

try:
    from gymnasium.vector import AutoresetMode
except ImportError:  # before Gymnasium 1.1: its vector environments reset at the next step
    AutoresetMode = None

AUTORESET_MODES = ("NextStep", "SameStep", "Disabled")

Infos = dict[str, Any]


class PickPlaceVectorEnv(VectorEnv):
    """A vector of `PickPlaceEnv` on MuJoCo that steps all of them at once.

    Seeds, observations, rewards and infos are those of `gymnasium.vector.SyncVectorEnv` around the
    same environments, bit for bit. Each part of an observation has a leading axis of `num_envs`, as
    have rewards (float64), terminations and truncations (bool).

    Args:
        num_envs: Number of environments.
        max_episode_steps: Number of steps after which an episode is truncated; None is never.
            `gymnasium.make_vec` passes the registered 400.
        autoreset_mode: "NextStep": the step after an episode's end begins the next episode and
            ignores the action. "SameStep": the step that ends an episode returns the next one's
            first observation, and the last one in `infos["final_obs"]` and `infos["final_info"]`.
            "Disabled": the caller resets, with `options={"reset_mask": (num_envs,) bool}`. Or
            `gymnasium.vector.AutoresetMode`.
        num_threads: Threads for the physics; None is one per processor that the process may use.
        config: Configuration of every environment, see `PickPlaceEnv`.
        arguments: Other arguments of `PickPlaceEnv`. Images are rendered one environment after the
            other, all in one OpenGL context.

    Raises:
        ValueError: An argument is unknown or out of range.
        RuntimeError: Gymnasium is older than 1.0.
    """

    closed = True  # until all is made: some versions of Gymnasium close half-made environments

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: Any = "NextStep",
        num_threads: int | None = None,
        config: PickPlaceConfig | Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        require_new_gymnasium()
        require_positive(
            num_envs=num_envs, max_episode_steps=max_episode_steps, num_threads=num_threads
        )
        from pp_env.sim.mujoco.batch import Stepper, make_simulators

        self._autoreset_mode = autoreset_mode_name(autoreset_mode)
        scene = checked_config(config, "mujoco")

        def make_env(simulator: Any) -> PickPlaceEnv:
            return PickPlaceEnv(lambda _: simulator, config=scene, **arguments)

        make_env(None)  # finds bad arguments before the scene is compiled
        self._simulators = make_simulators(scene, num_envs)
        self.envs = [make_env(simulator) for simulator in self._simulators]
        self._stepper = Stepper(self._simulators, num_threads)
        self._substeps = scene.timing.substeps
        self._max_episode_steps = max_episode_steps
        self.num_envs = num_envs
        self._set_spaces(self.envs[0])
        self._layout = CONTROL_MODES[self.envs[0].control_mode].layout
        self._observations: list[Observation | None] = [None] * num_envs
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self.closed = False

    def _set_spaces(self, env: PickPlaceEnv) -> None:
        self.metadata = dict(env.metadata)
        set_autoreset_mode(self, self._autoreset_mode)
        self.render_mode = env.render_mode
        self.single_action_space = env.action_space
        self.single_observation_space = env.observation_space
        self.action_space = batch_space(env.action_space, self.num_envs)
        self.observation_space = batch_space(env.observation_space, self.num_envs)

    @property
    def np_random_seed(self) -> Any:
        """Seed of each environment's generator, a tuple as in `SyncVectorEnv`."""
        return self.get_attr("np_random_seed")

    @property
    def np_random(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Generator of each environment, a tuple as in `SyncVectorEnv`."""
        return self.get_attr("np_random")

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
        seeds = env_seeds(seed, self.num_envs)
        options = dict(options or {})
        which = checked_reset_mask(
            options.pop("reset_mask", None), [each is not None for each in self._observations]
        )
        infos = [
            self._reset_one(i, seeds[i], options or None) if which[i] else None
            for i in range(self.num_envs)
        ]
        return self._batched_observation(), batched_infos(infos)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Apply actions (num_envs, action size) for one control period.

        Raises:
            ValueError: The actions have the wrong shape or are not finite.
            RuntimeError: `reset` was not called, or an environment that has ended was not reset.
        """
        starting = self._ended.copy()
        given = checked_batch(actions, self._layout, starting, self._autoreset_mode)
        applied = self._layout.clip(given)
        clipped = (applied != given).any(axis=1).tolist()
        running = [i for i, begins in enumerate(starting.tolist()) if not begins]
        for i in running:
            self._simulators[i].begin_step(self.envs[i].begin_step(applied[i]))
        self._stepper.step(running, self._substeps)

        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        infos: list[Infos | None] = [None] * self.num_envs
        for i in running:
            state = self._simulators[i].end_step()
            ended = self.envs[i].end_step(state, applied[i], clipped[i])
            self._observations[i], rewards[i], terminations[i], _, infos[i] = ended
        self._elapsed += 1
        for i in np.flatnonzero(starting).tolist():
            infos[i] = self._reset_one(i)  # also sets its count of steps to 0
        truncations = self._reached_step_limit()
        self._ended = terminations | truncations
        final = self._restart_ended(infos) if self._autoreset_mode == "SameStep" else {}
        return (
            self._batched_observation(), rewards, terminations, truncations,
            {**final, **batched_infos(infos)},
        )  # fmt: skip

    def render(self) -> tuple[Any, ...]:
        """Return the image of each environment's first camera, (H, W, 3) uint8 RGB."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call each environment's method of that name, or read its attribute; return a tuple."""
        found = [getattr(env, name) for env in self.envs]
        return tuple(each(*args, **kwargs) if callable(each) else each for each in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return each environment's attribute of that name, a tuple."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment.

        Args:
            name: Name of the attribute.
            values: A list or tuple of one value per environment, or one value for all.

        Raises:
            ValueError: There is another number of values.
        """
        each = values if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{name} needs {self.num_envs} values, got {len(each)}")
        for env, value in zip(self.envs, each, strict=True):
            setattr(env, name, value)

    def close_extras(self, **_: Any) -> None:
        """Free threads and simulators; `close` calls it once."""
        self._stepper.close()
        for env in self.envs:
            env.close()

    def _reset_one(self, i: int, seed: int | None = None, options: dict | None = None) -> Infos:
        """Start an episode in the i-th environment; return its info."""
        self._observations[i], info = self.envs[i].reset(seed=seed, options=options)
        self._elapsed[i], self._ended[i] = 0, False
        return info

    def _reached_step_limit(self) -> np.ndarray:
        """Return a mask (num_envs,) bool of the episodes to truncate."""
        if self._max_episode_steps is None:
            return np.zeros(self.num_envs, dtype=np.bool_)
        return self._elapsed >= self._max_episode_steps

    def _restart_ended(self, infos: list[Infos | None]) -> Infos:
        """Start the next episode where one has ended; return the last observations and infos."""
        ended = np.flatnonzero(self._ended).tolist()
        if not ended:
            return {}
        observations = np.full(self.num_envs, None, dtype=object)
        last: list[Infos | None] = [None] * self.num_envs
        mask = self._ended.copy()
        for i in ended:
            observations[i], last[i] = self._observations[i], infos[i]
            infos[i] = self._reset_one(i)
        return {
            "final_obs": observations, "_final_obs": mask,
            "final_info": batched_infos(last), "_final_info": mask.copy(),
        }  # fmt: skip

    def _batched_observation(self) -> Any:
        empty = create_empty_array(self.single_observation_space, self.num_envs, fn=np.empty)
        return concatenate(self.single_observation_space, self._observations, empty)


def set_autoreset_mode(envs: Any, name: str) -> None:
    """Have a vector environment say how it resets, as `SyncVectorEnv` does."""
    if AutoresetMode is not None:
        envs.autoreset_mode = envs.metadata["autoreset_mode"] = AutoresetMode(name)


def env_seeds(seed: int | Sequence[int | None] | None, count: int) -> Sequence[int | None]:
    """Return one seed per environment.

    Raises:
        ValueError: There is another number of seeds.
    """
    if seed is None:
        return [None] * count
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"seed must be one number or {count}, got {len(seed)}")
    return seed


def checked_reset_mask(mask: Any, was_reset: Sequence[bool]) -> np.ndarray:
    """Return a checked mask (n,) bool of the environments to reset; None is all.

    Args:
        mask: As given.
        was_reset: Whether each environment has begun an episode before.

    Raises:
        ValueError: The mask does not fit, or leaves out an environment that was never reset.
    """
    count = len(was_reset)
    if mask is None:
        return np.ones(count, dtype=np.bool_)
    mask = np.asarray(mask)
    if mask.shape != (count,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(
            f"reset_mask must be an array ({count},) of bool with at least one True, got {mask}"
        )
    if (~mask & ~np.asarray(was_reset)).any():
        raise ValueError("reset_mask leaves out an environment that was never reset")
    return mask


def checked_batch(actions: Any, layout: Layout, starting: np.ndarray, mode: str) -> np.ndarray:
    """Return the actions (n, layout.size) float32 of a step.

    Args:
        actions: As given.
        layout: The meaning of one action.
        starting: (n,) bool, environments whose episode has ended; those that begin one in this step
            ignore their action.
        mode: One of `AUTORESET_MODES`.

    Raises:
        ValueError: The actions have the wrong shape or are not finite.
        RuntimeError: An environment that has ended was not reset.
    """
    if mode != "NextStep" and starting.any():
        raise RuntimeError(
            f"environments {np.flatnonzero(starting).tolist()} have ended; reset them with "
            "options={'reset_mask': mask}"
        )
    shape = len(starting), layout.size
    array = np.asarray(actions, dtype=np.float32)
    if starting.any() and array.shape == shape:
        array = np.where(starting[:, None], layout.low, array)  # any valid action: not used
    return checked_actions(array, layout, shape)


def batched_infos(infos: Sequence[Infos | None]) -> Infos:
    """Batch infos as Gymnasium does: per key an array, and a mask `_key` of the environments.

    Args:
        infos: One per environment; None where there is none.

    Returns:
        The result of `VectorEnv._add_info` for one environment after the other, in less time.
    """
    owners = [i for i, info in enumerate(infos) if info]
    own = [info for info in infos if info]
    if len({tuple(info) for info in own}) == 1:  # the usual case, and much faster
        all_values = zip(*(info.values() for info in own), strict=True)
        columns = {key: (owners, values) for key, values in zip(own[0], all_values, strict=True)}
    else:
        columns = {
            key: (
                [i for i, info in zip(owners, own, strict=True) if key in info],
                [info[key] for info in own if key in info],
            )
            for key in dict.fromkeys(key for info in own for key in info)
        }
    batched: Infos = {}
    all_true = np.ones(len(infos), dtype=np.bool_)
    for key, (holders, values) in columns.items():
        mask = all_true.copy()
        if len(holders) < len(infos):
            mask[:] = False
            mask[holders] = True
        batched[key] = _batched_column(values, holders, len(infos))
        batched[f"_{key}"] = mask
    return batched


def _batched_column(values: Sequence[Any], owners: list[int], count: int) -> Any:
    """Return an array whose first axis is the environments, or a dictionary of such arrays.

    Args:
        values: One per owner.
        owners: Indices of the environments that the values belong to.
        count: Number of environments.
    """
    first = values[0]
    if isinstance(first, dict):
        own: list[Infos | None] = [None] * count
        for i, value in zip(owners, values, strict=True):
            own[i] = value
        return batched_infos(own)
    column = batched_column(values)
    if len(values) == count:
        return column
    array = np.full((count, *column.shape[1:]), None if column.dtype == object else 0, column.dtype)
    array[owners] = column
    return array


def batched_column(values: Sequence[Any]) -> np.ndarray:
    """Return an array of values of one type, one after the other along the first axis."""
    first = values[0]
    if isinstance(first, np.ndarray):
        return np.array(values, dtype=first.dtype)
    if isinstance(first, (bool, int, float, np.number)):
        return np.array(values, dtype=type(first))
    return np.fromiter(values, dtype=object, count=len(values))


def autoreset_mode_name(mode: Any) -> str:
    """Return the checked name of an autoreset mode, given as text or as `AutoresetMode`."""
    name = getattr(mode, "value", mode)
    if name not in AUTORESET_MODES:
        raise ValueError(f"autoreset_mode must be one of {list(AUTORESET_MODES)}, got {mode!r}")
    return name


def require_new_gymnasium() -> None:
    """Raise a `RuntimeError` if Gymnasium has other vector environments than these."""
    if int(gym.__version__.split(".")[0]) < 1:
        raise RuntimeError(
            "the vector environment needs gymnasium 1.0 or newer, found "
            f"{gym.__version__}; vectorization_mode='sync' and 'async' work"
        )


def require_positive(**numbers: int | None) -> None:
    """Raise a `ValueError` that names the first number below 1; None is none."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def make_vector_env(simulator: str = "mujoco", **arguments: Any) -> VectorEnv:
    """Return a vector environment of the simulator of that name; `gymnasium.make_vec` calls this.

    Args:
        simulator: One of `SIMULATORS` that steps many worlds at once.
        arguments: See `PickPlaceVectorEnv` and `pp_env.sim.warp.vector_env.WarpVectorEnv`.

    Raises:
        ValueError: An argument is unknown or out of range, or the simulator steps one world only.
        ImportError: What the simulator needs is not installed.
    """
    for name, default in (("headless", True), ("simulator_options", None)):
        if arguments.pop(name, None) not in (default, None, {}):
            raise ValueError(f"{name} must be left out for many environments")
    able = {name: row.vector_env for name, row in SIMULATORS.items() if row.vector_env}
    if simulator not in able:
        raise ValueError(
            f"many environments at once need one of the simulators {list(able)}, got "
            f"{simulator!r}; vectorization_mode='sync' and 'async' take any"
        )
    return load(simulator, able[simulator])(**arguments)
