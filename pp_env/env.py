"""`PickPlaceEnv`: the Gymnasium environment around a simulator."""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from pp_env import panda, reward, rotation, task
from pp_env.config import PickPlaceConfig, TimingConfig, from_dict
from pp_env.control import CONTROL_MODES
from pp_env.disturbances import ActionDelay, SensorNoise
from pp_env.layout import ENVIRONMENT_STATE, GOAL, GOAL_OBSERVATION, OBSERVATION, Layout
from pp_env.names import Names, did_you_mean
from pp_env.reward import REWARD_TYPES
from pp_env.sim import default_timing, has_screen, make_simulator, require_preset
from pp_env.sim.api import (
    IMAGE_TYPES,
    Command,
    InitialState,
    PlacedObject,
    Pose,
    SimState,
    Simulator,
)

_LOG = logging.getLogger(__name__)

OBS_TYPES = ("state", "environment_state_agent_pos", "pixels", "pixels_agent_pos", "goal")

_IDENTITY_QUAT = rotation.about_z(0.0)

Observation = np.ndarray | dict[str, Any]


class PickPlaceEnv(gym.Env):
    """A Franka Panda picks an object off a table and places it on a marker.

    Task:
        Move the object onto the place marker, release it, bring the arm back to HOME.

    Randomization:
        `reset`'s seed alone decides pick, place and the object's colour; with a pool of objects
        (`PickPlaceConfig.objects`) also which object it is and what stands beside it, and with
        `TaskConfig.random_yaw` how the objects are turned. `options` may fix "pick" and "place"
        (x, y in m), "color" (r, g, b in [0, 1]), "object" (a name), "yaw" (rad)
        and "joint_pos" (7,), rad, at which the arm starts; those of other tools (`lerobot_...`) are
        ignored.
        `config.randomization` (`pp_env.randomization`) says what else varies, by default nothing.

    Success (`pp_env.task.is_success`):
        The object is at rest on the table within 5 cm of the marker and not held, the gripper is
        open and the arm is at HOME.

    Observation, by `obs_type`:
        - "state": (23,) float32, see `pp_env.layout.OBSERVATION`.
        - "environment_state_agent_pos": {"environment_state": (11,), "agent_pos": (23,)}, the
          former as in `pp_env.layout.ENVIRONMENT_STATE`.
        - "pixels": {"pixels": {camera: (H, W, 3) uint8}}; `pp_env.wrappers.FlatObservation` makes
          it flat, as Stable-Baselines3 needs it.
        - "pixels_agent_pos": the same and "agent_pos".
        - "goal": {"observation": (34,), "achieved_goal": (3,), "desired_goal": (3,)}: positions of
          the object and of its goal, m, world frame, for learners that replay with other goals.
          The reward is then a function of these two alone (`compute_reward`, which only this
          `obs_type` has).

        With `image_types` beyond "rgb", "depth" {camera: (H, W) float32, m} and "segmentation"
        {camera: (H, W) uint8, `pp_env.sim.api.SEGMENTS`} stand beside "pixels".

    Action, by `control_mode`:
        All are float32. The last number is the fingers' position target, m.

        - "joint_pos": (8,) absolute joint position targets, see `pp_env.layout.ACTION`.
        - "joint_delta": (8,) changes of these targets, `pp_env.layout.JOINT_DELTA_ACTION`.
        - "ee_delta": (7,) change of the hand's target pose, `pp_env.layout.EE_DELTA_ACTION`.
        - "ee_pose": (10,) absolute target pose of the hand, `pp_env.layout.HAND_POSE_ACTION`: its
          position and the first two columns of its rotation matrix, made orthonormal. How joints
          come of it: `pp_env.hand_pose.follow`.

        A target is held for one control period of 1/30 s. Values out of bounds are clipped;
        `info["action"]` is the applied action and `info["action_clipped"]` is True if it differs
        from the given one. With "ee_pose" it is also True if the command does not bring the hand to
        the pose, and `info["action_limits"]`, of `Names`, says why: "bounds", "rotation" (a
        column is zero or both are parallel: the last command's rotation stays), "reach" (the
        nearest pose on the way to HOME takes its place) or "speed" (the joints go there at their
        greatest speed).

    Reward, by `reward_type`:
        - "sparse": 1.0 in every step whose state is a success, else 0.0.
        - "dense": in stages, in [0, 1], see `pp_env.reward`.

    `info`:
        It has the same keys at reset and at every step, and no sensor noise. Names are joined to
        one text (`pp_env.names.Names`), which can be batched.

        - `action`, `action_clipped`: the applied action, NaN at reset, see above.
        - `is_success`, `is_grasped`: bool.
        - `unmet_conditions`: names of the conditions for success that do not hold.
        - `object_pos` (3,), m, `object_quat` (4,), w, x, y, z, `goal_pos` (3,), m: world
          frame.
        - `distance`: from the object to the goal in the table's plane, m.
        - `environment_state`: (11,) float32, `pp_env.layout.ENVIRONMENT_STATE`.
        - `object`, `distractors`: the object's name and the names of the others on the table.
        - `object_rgb`: (3,), in [0, 1].
        - `task`: the language instruction.
        - `object_size`, `grasp_height`, `grasp_yaws`, `travel_height`, `scene_height`: how to grasp
          the object, see `pp_env.task.grasp_requirements`.
        - `variation`: the sampled `pp_env.randomization.Variation`; only with randomization.

    Args:
        simulator: Name of the simulator, or a function that makes one from the configuration.
        obs_type: One of `OBS_TYPES`.
        render_mode: "rgb_array" makes `render` return the image of the first camera; "human" opens
            the simulator's window, which shows every step for as long as it takes.
        config: Scene, timing, task, grasp and images; by default the reference scene, with the
            physics rate that the simulator is meant for. Or the dictionary that `EnvSpec.to_json`
            has made of one; what it leaves out is the reference's.
        terminate_on_success: True ends an episode as soon as it has succeeded.
        headless: False opens the simulator's window.
        simulator_options: Keywords of that simulator alone, such as Isaac Sim's `assets_root`.
        control_mode: One of `CONTROL_MODES`.
        reward_type: "sparse" or "dense".
        image_types: Kinds of image to observe: some of "rgb", "depth" and "segmentation".

    Raises:
        ValueError: An argument is unknown or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 30}

    task = "pick_place"
    task_description = "pick and place"

    def __init__(
        self,
        simulator: str | Callable[[PickPlaceConfig], Simulator] = "mujoco",
        obs_type: str = "state",
        render_mode: str | None = None,
        config: PickPlaceConfig | Mapping[str, Any] | None = None,
        terminate_on_success: bool = True,
        headless: bool = True,
        simulator_options: Mapping[str, Any] | None = None,
        control_mode: str = "joint_pos",
        reward_type: str = "sparse",
        image_types: Sequence[str] = ("rgb",),
    ) -> None:
        _require("obs_type", obs_type, OBS_TYPES)
        _require("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        _require("reward_type", reward_type, REWARD_TYPES)
        _require_images(image_types, obs_type)
        if render_mode == "human" and callable(simulator):
            raise ValueError(
                "render_mode='human' opens the window of a simulator that is given by its name; "
                "many environments at once, and those of a simulator of your own, have none"
            )
        self.config = checked_config(config, simulator)
        can_show = has_screen() and not callable(simulator)  # Gymnasium's checker tries each mode
        self.metadata = {
            "render_modes": [m for m in self.metadata["render_modes"] if m != "human" or can_show],
            "render_fps": self.config.timing.control_hz,
        }
        self.obs_type = obs_type
        self.render_mode = render_mode
        self._due = 0.0  # when the next step is to be shown, s
        self.reward_type = reward_type
        self.image_types = tuple(image_types)
        self._state: SimState | None = None
        self.set_control_mode(control_mode)
        self.observation_space = self._make_observation_space()
        self._terminate_on_success = terminate_on_success
        self._command = Command(np.zeros(7), 0.0)
        self._command_limits: list[str] | None = None
        self._goal_pos = np.zeros(3)
        self._object_rgb = np.zeros(3)
        self._object_quat = _IDENTITY_QUAT
        self._target, self._others = 0, ()
        self._episode_info: dict[str, Any] = {}
        if callable(simulator):
            self._simulator = simulator(self.config)
        else:
            self._simulator = make_simulator(
                simulator,
                self.config,
                headless and render_mode != "human",
                **(simulator_options or {}),
            )

    @property
    def others(self) -> tuple[PlacedObject, ...]:
        """The objects beside the target, as the episode began."""
        return self._others

    @property
    def simulator_description(self) -> dict[str, Any]:
        """The simulator's name, version and settings, as a dataset records them; JSON values."""
        return self._simulator.description

    def set_control_mode(self, control_mode: str) -> None:
        """Choose what actions mean. The next call must be `reset`.

        Raises:
            ValueError: There is no such mode.
        """
        _require("control_mode", control_mode, CONTROL_MODES)
        self.control_mode = control_mode
        self._control = CONTROL_MODES[control_mode]
        self.action_space = self._control.layout.space()
        self._state = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Seed of the episode's generator; None goes on with the generator.
            options: What to fix instead of sampling it, see the class's docstring.

        Raises:
            ValueError: An option is unknown or does not fit the scene.
        """
        super().reset(seed=seed)
        start = task.sample_start(self.np_random, self.config, options)
        variation = task.sample_variation(self.np_random, self.config, start)
        initial = task.initial_state(start, self.config, variation)
        self._goal_pos, self._object_rgb = initial.goal_pos, initial.object_rgb
        self._command = Command(initial.joint_pos, initial.gripper_pos)
        self._command_limits = None
        self._variation, self._add_sensor_noise = variation, SensorNoise(variation)
        self._delay_command = ActionDelay(variation, self._command)
        self._describe_episode(initial)
        self._state, self._object_quat = self._simulator.reset(initial), _IDENTITY_QUAT
        observation, info = self._observe(self._state)
        none = np.full(self._control.layout.size, np.nan, dtype=np.float32)
        return observation, {**info, **self._action_info(none, clipped=False)}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control period.

        Args:
            action: (action size,), see the class's docstring.

        Raises:
            ValueError: The action has the wrong shape or is not finite.
            RuntimeError: `reset` was not called.
        """
        state, applied, clipped = self._apply(action)
        if self.render_mode == "human":
            self._wait_for_its_time()
        return self.end_step(state, applied, clipped)

    def _wait_for_its_time(self) -> None:
        """Keep to real time, so that who watches sees motions at their speed."""
        now = time.monotonic()
        time.sleep(max(0.0, self._due - now))
        self._due = max(self._due, now) + 1 / self.config.timing.control_hz

    def advance(self, action: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Apply an action like `step`, but render nothing; wrappers do not count it.

        Args:
            action: (action size,), as for `step`.

        Returns:
            The observation of `obs_type="state"`, (23,), and `info`.
        """
        self._state, applied, clipped = self._apply(action)
        vector, info = self._observe(self._state, OBSERVATION.pack)
        return vector, {**info, **self._action_info(applied, clipped)}

    def move_object(
        self, position: np.ndarray, quat_wxyz: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Put the target object at rest at another pose, in the middle of an episode.

        Args:
            position: (3,) its centre, m, world frame.
            quat_wxyz: (4,) its orientation, world frame, unit quaternion.

        Returns:
            The observation of `obs_type="state"`, (23,), and `info`.

        Raises:
            RuntimeError: `reset` was not called, or the gripper holds the object.
        """
        if self._state is None or self._state.is_grasped:
            raise RuntimeError("move_object needs a started episode and an object that is not held")
        self._state = self._simulator.move_object(
            Pose(np.array(position, dtype=np.float64), np.array(quat_wxyz, dtype=np.float64))
        )
        return self._observe(self._state, OBSERVATION.pack)

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """Return observation and `info` of the present state, with the same sensor noise as before.

        Raises:
            RuntimeError: `reset` was not called.
        """
        if self._state is None:
            raise RuntimeError("observe needs a started episode; call reset first")
        values = self._field_values(self._seen)
        return self._observation(values), self._info(self._state, self._field_values(self._state))

    def _apply(self, action: np.ndarray) -> tuple[SimState, np.ndarray, bool]:
        """Return the state after an action, the applied action, and whether it was clipped."""
        layout = self._control.layout
        given = checked_actions(action, layout, (layout.size,))
        applied = layout.clip(given)
        state = self._simulator.step(self.begin_step(applied))
        return state, applied, applied.tolist() != given.tolist()

    def begin_step(self, applied: np.ndarray) -> Command:
        """Return the simulator's next command: the part of `step` before the physics.

        Args:
            applied: (action size,) float32, an action within its bounds.

        Raises:
            RuntimeError: `reset` was not called.
        """
        if self._state is None:
            raise RuntimeError("step needs a started episode; call reset first")
        period = self.config.timing.control_period
        self._command, self._command_limits = self._control.command(self._command, applied, period)
        return self._delay_command(self._command)

    def end_step(
        self, state: SimState, applied: np.ndarray, clipped: bool
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return what `step` returns: the part of `step` after the physics.

        Args:
            state: The simulator's new state.
            applied: (action size,) the action that led to it.
            clipped: True if the given action was out of bounds.
        """
        self._state = state
        observation, info = self._observe(state)
        info.update(self._action_info(applied, clipped))
        terminated = info["is_success"] and self._terminate_on_success
        return observation, self._reward(observation, info), terminated, False, info

    def _action_info(self, applied: np.ndarray, clipped: bool) -> dict[str, Any]:
        """Return the part of `info` that tells of an action."""
        limits = self._command_limits
        told: dict[str, Any] = {"action": applied, "action_clipped": clipped or bool(limits)}
        if self.control_mode == "ee_pose":
            told["action_limits"] = Names.of([*(["bounds"] if clipped else []), *(limits or [])])
        return told

    @property
    def compute_reward(self) -> Callable[[np.ndarray, np.ndarray, Any], np.ndarray | float]:
        """Function of (achieved_goal, desired_goal, info) that returns rewards (...).

        Goals are (..., 3), m, world frame: where the object is, and where it belongs. `info` is not
        used; Gymnasium-Robotics' interface has it.

        Raises:
            AttributeError: `obs_type` is not "goal"; libraries recognize goals by this attribute.
        """
        if self.obs_type != "goal":
            raise AttributeError(f"compute_reward needs obs_type 'goal', got {self.obs_type!r}")
        return self._goal_reward

    def _goal_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray | float:
        rewards = reward.of_goals(achieved_goal, desired_goal, self.reward_type, self.config)
        return float(rewards) if rewards.ndim == 0 else rewards

    def render(self) -> np.ndarray | None:
        """Return the image of the first camera, (H, W, 3) uint8 RGB; only in mode "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return self._simulator.render(self.config.cameras[0].name)

    def render_cameras(self, kind: str = "rgb") -> dict[str, np.ndarray]:
        """Render the current state with every camera.

        Args:
            kind: One of `IMAGE_TYPES`.

        Returns:
            By camera name, an image as in the observation of `obs_type="pixels"`.
        """
        return {c.name: self._simulator.render(c.name, kind) for c in self.config.cameras}

    def close(self) -> None:
        """Free the simulator; a second call has no effect."""
        self._simulator.close()

    def _make_observation_space(self) -> gym.Space:
        if self.obs_type == "state":
            return OBSERVATION.space()
        if self.obs_type == "goal":
            goal = GOAL.space()
            return gym.spaces.Dict(
                observation=GOAL_OBSERVATION.space(), achieved_goal=goal, desired_goal=goal
            )
        spaces: dict[str, gym.Space] = {}
        if self.obs_type.startswith("pixels"):
            names = [camera.name for camera in self.config.cameras]
            for kind in self.image_types:
                space = _image_space(kind, self.config.render.size)
                spaces[_IMAGE_KEYS[kind]] = gym.spaces.Dict(dict.fromkeys(names, space))
        if self.obs_type.startswith("environment_state"):
            spaces["environment_state"] = ENVIRONMENT_STATE.space()
        if self.obs_type.endswith("agent_pos"):
            spaces["agent_pos"] = OBSERVATION.space()
        return gym.spaces.Dict(spaces)

    def _observe(
        self, state: SimState, pack: Callable[[dict[str, Any]], Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return observation and info of a state; `pack` makes the observation of its values."""
        pack = pack or self._observation
        self._object_quat = rotation.nearest(state.object.quat_wxyz, self._object_quat)
        true_values, self._seen = self._field_values(state), self._add_sensor_noise(state)
        seen_values = true_values if self._seen is state else self._field_values(self._seen)
        return pack(seen_values), self._info(state, true_values)

    def _field_values(self, state: SimState) -> dict[str, Any]:
        """Return a state's numbers by the names of the layouts' fields."""
        return {
            "joint_pos": state.joint_pos,
            "joint_vel": state.joint_vel,
            "gripper_pos": state.gripper_pos,
            "eef_pos": state.eef.position,
            "eef_quat": rotation.nearest(state.eef.quat_wxyz, panda.HAND_DOWN_QUAT_WXYZ),
            "object_pos": state.object.position,
            "object_quat": self._object_quat,
            "object_vel": state.object_vel,
            "goal_pos": self._goal_pos,
            "is_grasped": state.is_grasped,
        }

    def _observation(self, values: dict[str, Any]) -> Observation:
        """Return the observation of `obs_type`, from values by field name."""
        if self.obs_type == "state":
            return OBSERVATION.pack(values)
        if self.obs_type == "goal":
            return {
                "observation": GOAL_OBSERVATION.pack(values),
                "achieved_goal": GOAL.pack({"pos": values["object_pos"]}),
                "desired_goal": GOAL.pack({"pos": self._goal_center()}),
            }
        parts: dict[str, Any] = {}
        if self.obs_type.startswith("pixels"):
            for kind in self.image_types:
                parts[_IMAGE_KEYS[kind]] = self.render_cameras(kind)
        if self.obs_type.startswith("environment_state"):
            parts["environment_state"] = ENVIRONMENT_STATE.pack(values)
        if self.obs_type.endswith("agent_pos"):
            parts["agent_pos"] = OBSERVATION.pack(values)
        return parts

    def _goal_center(self) -> np.ndarray:
        """Return where the object's centre belongs, (3,), m, world frame."""
        height = self.config.rest_z_of(self.config.object_pool[self._target])
        return np.array([*self._goal_pos[:2], height])

    def _reward(self, observation: Any, info: dict[str, Any]) -> float:
        if self.obs_type == "goal":
            goals = observation["achieved_goal"], observation["desired_goal"]
            return float(self.compute_reward(*goals, info))
        if self.reward_type == "sparse" or self._state is None:
            return float(info["is_success"])
        return reward.dense(self._state, self._goal_center(), info["unmet_conditions"], self.config)

    def _describe_episode(self, initial: InitialState) -> None:
        """Set the part of `info` that is the same at every step of the episode."""
        self._target, self._others = initial.target, initial.others
        target, *others = (self.config.object_pool[placed.pool_index] for placed in initial.placed)
        self.task_description = task.language_instruction(target, self.config)
        self._episode_info = {
            "object": target.name,
            "distractors": Names.of(obj.name for obj in others),
            "task": self.task_description,
            **task.grasp_requirements(initial, self.config),
        }

    def _info(self, state: SimState, true_values: dict[str, Any]) -> dict[str, Any]:
        """Return the `info` of a state, given its values by field name."""
        unmet = task.unmet_conditions(state, self._goal_pos, self.config, self._target)
        return {
            **self._episode_info,
            "object_size": self._episode_info["object_size"].copy(),
            "grasp_yaws": self._episode_info["grasp_yaws"].copy(),
            "is_success": not unmet,
            "is_grasped": bool(state.is_grasped),  # NumPy's bool would be batched as an object
            "object_pos": true_values["object_pos"],
            "object_quat": true_values["object_quat"],
            "object_rgb": self._object_rgb.copy(),
            "goal_pos": self._goal_pos.copy(),
            "distance": task.distance_to_goal(state, self._goal_pos),
            "unmet_conditions": Names.of(unmet),
            **({} if self._variation is None else {"variation": self._variation}),
            "environment_state": ENVIRONMENT_STATE.pack(true_values),
        }


def checked_config(
    config: PickPlaceConfig | Mapping[str, Any] | None, simulator: object
) -> PickPlaceConfig:
    """Return a configuration, given as such or as a dictionary.

    Args:
        config: What was given; missing parts are those of the reference scene, with the physics
            rate of a simulator that is given by name.
        simulator: The simulator, by name or as a function.

    Raises:
        ValueError: A key is unknown, a value is out of range, or the simulator does not render
            the preset.
    """
    if isinstance(config, PickPlaceConfig):
        given = config
    else:
        given = from_dict(PickPlaceConfig, dict(config or {}))
        if isinstance(simulator, str) and "timing" not in (config or {}):
            given = dataclasses.replace(given, timing=default_timing(simulator))
    if isinstance(simulator, str):
        require_preset(simulator, given.render.preset)
        _warn_of_others_rate(given, simulator)
    return given


def _warn_of_others_rate(config: PickPlaceConfig, simulator: str) -> None:
    """Log that a whole configuration has MuJoCo's rate of the physics, where half is enough."""
    given, own = config.timing.physics_hz, default_timing(simulator).physics_hz
    if given == TimingConfig.physics_hz != own:
        _LOG.warning(
            "physics at %d Hz, of the configuration that was given; simulator %r needs %d: give "
            "the configuration as a dictionary of what you change, or timing=pp_env.sim."
            "default_timing(%r)",
            given, simulator, own, simulator,
        )  # fmt: skip


_MAX_DEPTH = 100.0  # m, beyond everything that a camera renders
_IMAGE_KEYS = {"rgb": "pixels", "depth": "depth", "segmentation": "segmentation"}
assert tuple(_IMAGE_KEYS) == IMAGE_TYPES


def _image_space(kind: str, size: tuple[int, int]) -> gym.spaces.Box:
    """Return the space of one image of a kind, for a size of (width, height) pixels."""
    width, height = size
    if kind == "depth":
        return gym.spaces.Box(0.0, _MAX_DEPTH, shape=(height, width), dtype=np.float32)
    shape = (height, width, 3) if kind == "rgb" else (height, width)
    return gym.spaces.Box(0, 255, shape=shape, dtype=np.uint8)


def _require(name: str, value: object, choices: Collection[object]) -> None:
    if value not in choices:
        nearest = did_you_mean([value], [choice for choice in choices if isinstance(choice, str)])
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}{nearest}")


def _require_images(image_types: Sequence[str], obs_type: str) -> None:
    if isinstance(image_types, str) or not image_types or set(image_types) - set(IMAGE_TYPES):
        raise ValueError(f"image_types must be some of {list(IMAGE_TYPES)}, got {image_types!r}")
    if tuple(image_types) != ("rgb",) and not obs_type.startswith("pixels"):
        raise ValueError(
            f"image_types {list(image_types)} need obs_type 'pixels' or 'pixels_agent_pos', "
            f"got {obs_type!r}"
        )


def checked_actions(actions: Any, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Return the actions as float32.

    Args:
        actions: The actions.
        layout: The meaning of one action.
        shape: Expected shape, (layout.size,) or (N, layout.size).

    Raises:
        ValueError: They have another shape or are not finite.
    """
    array = np.asarray(actions, dtype=np.float32)
    if array.shape != shape:
        raise ValueError(f"action must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        broken = np.flatnonzero(~np.isfinite(array)) % layout.size
        bad = [layout.names[i] for i in np.unique(broken)]
        raise ValueError(f"action must be finite, but {bad} of it are not: {array}")
    return array
