"""`PickPlaceEnv`: the Gymnasium environment around a simulator."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import gymnasium as gym
import numpy as np

from pp_env import rotation, task
from pp_env.config import PickPlaceConfig
from pp_env.layout import ACTION, ENVIRONMENT_STATE, OBSERVATION
from pp_env.sim import default_timing, make_simulator
from pp_env.sim.api import Command, InitialState, SimState, Simulator

OBS_TYPES = ("state", "pixels_agent_pos")

Observation = np.ndarray | dict[str, Any]


class PickPlaceEnv(gym.Env):
    """A Franka Panda picks an object off a table and places it on a marker.

    Task:
        Move the object onto the place marker, let go, bring the arm back to HOME.

    Observation:
        `obs_type="state"`: (23,) float32, see `pp_env.layout.OBSERVATION`.
        `obs_type="pixels_agent_pos"`: {"pixels": {camera: (H, W, 3) uint8}, "agent_pos": (23,)}.

    Action:
        (8,) float32, see `pp_env.layout.ACTION`: absolute joint and finger position targets, held
        for one control period of 1/30 s. Values out of bounds are clipped; `info["action"]` is
        what was applied and `info["action_clipped"]` says whether it differs.

    Reward:
        1.0 in every step whose state is a success, else 0.0.

    Randomization:
        Pick, place and the object's colour, from `reset`'s seed alone; with a pool of objects
        (`PickPlaceConfig.objects`) also which one it is and what stands beside it, and with
        `TaskConfig.random_yaw` how they are turned. `options` may fix "pick", "place" (x, y in m),
        "color" (r, g, b in [0, 1]), "object" (a name) and "yaw" (rad).

    Success (`pp_env.task.is_success`):
        Object at rest on the table within 5 cm of the marker, not held, gripper open, arm at HOME.

    `info`, at reset and at every step: `is_success`, `is_grasped`, `object_pos` (3,),
    `object_quat` (4,) w first, `goal_pos` (3,), `distance` (m, in the plane), `failures` (which
    conditions for success do not hold), `environment_state` (11,), `object_rgb` (3,), `object` (its
    name), `distractors` (the others' names), `task` (the text), and what `pp_env.task.handling`
    says about how to grasp it.

    Args:
        simulator: Name of the simulator, or a function that makes one from the configuration.
        obs_type: "state" or "pixels_agent_pos".
        render_mode: "rgb_array" makes `render` return the picture of the first camera.
        config: Scene, timing, task, grasp and pictures; by default the reference scene, with the
            physics rate that the simulator is meant for.
        terminate_on_success: Whether an episode ends as soon as it has succeeded.
        headless: False opens the simulator's window.
        simulator_options: Keywords of that simulator alone, such as Isaac Sim's `assets_root`.

    Raises:
        ValueError: An argument is unknown or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}

    task = "pick_place"
    task_description = "pick and place"

    def __init__(
        self,
        simulator: str | Callable[[PickPlaceConfig], Simulator] = "mujoco",
        obs_type: str = "state",
        render_mode: str | None = None,
        config: PickPlaceConfig | None = None,
        terminate_on_success: bool = True,
        headless: bool = True,
        simulator_options: Mapping[str, Any] | None = None,
    ) -> None:
        if obs_type not in OBS_TYPES:
            raise ValueError(f"obs_type must be one of {list(OBS_TYPES)}, got {obs_type!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode must be None or one of {self.metadata['render_modes']}, "
                f"got {render_mode!r}"
            )
        self.config = config or _default_config(simulator)
        self.metadata = {**self.metadata, "render_fps": self.config.timing.control_hz}
        self.obs_type = obs_type
        self.render_mode = render_mode
        self.action_space = ACTION.space()
        self.observation_space = self._make_observation_space()
        self._terminate_on_success = terminate_on_success
        self._state: SimState | None = None
        self._goal_pos = np.zeros(3)
        self._object_rgb = np.zeros(3)
        self._target = 0
        self._episode_info: dict[str, Any] = {}
        if callable(simulator):
            self._simulator = simulator(self.config)
        else:
            self._simulator = make_simulator(
                simulator, self.config, headless, **(simulator_options or {})
            )

    @property
    def simulator_description(self) -> dict[str, Any]:
        """What a dataset records about the simulator."""
        return self._simulator.description

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Raises:
            ValueError: An option is unknown or does not fit the scene.
        """
        super().reset(seed=seed)
        start = task.sample_start(self.np_random, self.config, options)
        initial = task.initial_state(start, self.config)
        self._goal_pos, self._object_rgb = initial.goal_pos, initial.object_rgb
        self._describe_episode(initial)
        self._state = self._simulator.reset(initial)
        return self._observation(self._state), self._info(self._state)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Applies an action for one control period.

        Raises:
            ValueError: The action has the wrong shape or is not finite.
            RuntimeError: `reset` was not called.
        """
        if self._state is None:
            raise RuntimeError("step needs a started episode; call reset first")
        wanted = _checked(action)
        applied = np.clip(wanted, ACTION.low, ACTION.high)
        self._state = self._simulator.step(
            Command(applied[:7].astype(np.float64), float(applied[7]))
        )
        info = self._info(self._state)
        info["action"] = applied
        info["action_clipped"] = bool((applied != wanted).any())
        success = info["is_success"]
        terminated = success and self._terminate_on_success
        return self._observation(self._state), float(success), terminated, False, info

    def render(self) -> np.ndarray | None:
        """The picture of the first camera, (H, W, 3) uint8 RGB; None without a render mode."""
        if self.render_mode is None:
            return None
        return self._simulator.render(self.config.cameras[0].name)

    def close(self) -> None:
        """Frees the simulator; a second call has no effect."""
        self._simulator.close()

    def _make_observation_space(self) -> gym.Space:
        if self.obs_type == "state":
            return OBSERVATION.space()
        size = self.config.render.resolution
        picture = gym.spaces.Box(0, 255, shape=(size, size, 3), dtype=np.uint8)
        pixels = gym.spaces.Dict({camera.name: picture for camera in self.config.cameras})
        return gym.spaces.Dict({"pixels": pixels, "agent_pos": OBSERVATION.space()})

    def _observation(self, state: SimState) -> Observation:
        vector = OBSERVATION.pack(
            {
                "joint_pos": state.joint_pos,
                "joint_vel": state.joint_vel,
                "gripper_pos": state.gripper_pos,
                "eef_pos": state.eef.position,
                "eef_quat": rotation.canonical(state.eef.quat_wxyz),
            }
        )
        if self.obs_type == "state":
            return vector
        names = [camera.name for camera in self.config.cameras]
        pixels = {name: self._simulator.render(name) for name in names}
        return {"pixels": pixels, "agent_pos": vector}

    def _describe_episode(self, initial: InitialState) -> None:
        """What `info` says about the objects, all episode long."""
        self._target = initial.target
        target, *others = (self.config.candidates[placed.candidate] for placed in initial.placed)
        self.task_description = task.instruction(target, self.config)
        self._episode_info = {
            "object": target.name,
            "distractors": [obj.name for obj in others],
            "task": self.task_description,
            **task.handling(initial, self.config),
        }

    def _info(self, state: SimState) -> dict[str, Any]:
        unmet = task.failures(state, self._goal_pos, self.config, self._target)
        object_quat = rotation.canonical(state.object.quat_wxyz)
        return {
            **{key: copy(value) for key, value in self._episode_info.items()},
            "is_success": not unmet,
            "is_grasped": state.is_grasped,
            "object_pos": state.object.position,
            "object_quat": object_quat,
            "object_rgb": self._object_rgb.copy(),
            "goal_pos": self._goal_pos.copy(),
            "distance": task.distance_to_goal(state, self._goal_pos),
            "failures": unmet,
            "environment_state": ENVIRONMENT_STATE.pack(
                {
                    "object_pos": state.object.position,
                    "object_quat": object_quat,
                    "goal_pos": self._goal_pos,
                    "is_grasped": state.is_grasped,
                }
            ),
        }


def _default_config(simulator: object) -> PickPlaceConfig:
    """The reference scene, with the physics rate that a simulator known by name is meant for."""
    if isinstance(simulator, str):
        return PickPlaceConfig(timing=default_timing(simulator))
    return PickPlaceConfig()


def _checked(action: np.ndarray) -> np.ndarray:
    """The action as float32 (8,)."""
    array = np.asarray(action, dtype=np.float32)
    if array.shape != (ACTION.size,):
        raise ValueError(f"action must have shape ({ACTION.size},), got {array.shape}")
    if not np.isfinite(array).all():
        bad = [name for name, x in zip(ACTION.names, array, strict=True) if not np.isfinite(x)]
        raise ValueError(f"action must be finite, but {bad} of it are not: {array}")
    return array
