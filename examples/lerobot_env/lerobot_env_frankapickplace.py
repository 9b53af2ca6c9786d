"""`FrankaPickPlace-v0` as `--env.type=frankapickplace` of `lerobot-train` and `lerobot-eval`."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.envs.configs import HubEnvConfig
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE

import pp_env
from pp_env import layout, task
from pp_env.config import (
    CAMERAS,
    GraspConfig,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
    TimingConfig,
    choose_cameras,
)
from pp_env.control import CONTROL_MODES
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import default_timing

PIXELS = "pixels_agent_pos"
STATE_ONLY = "environment_state_agent_pos"
_ENV_OBS_TYPES = {PIXELS: "pixels_agent_pos", STATE_ONLY: "state"}

gym.register(id=f"{__name__}/{pp_env.ENV_ID}", entry_point=f"{__name__}:make_env")


@EnvConfig.register_subclass("frankapickplace")
@dataclass
class FrankaPickPlaceConfig(HubEnvConfig):
    """Options `--env.*` of lerobot's commands, named as collect.py's; match them to the dataset.

    Attributes:
        hub_path: Repository on the Hugging Face Hub whose `env.py` makes the environment instead.
        task: Part of the Gymnasium id.
        fps: Control and camera rate, Hz.
        episode_length: Steps after which an episode is truncated.
        obs_type: "pixels_agent_pos", or "environment_state_agent_pos" for datasets without
            images.
        control_mode: What actions mean.
        resolution: Width and height of images, one number for both or [640,480].
        preset: Image quality.
        cameras: Names of the cameras.
        grasp: Grasp mode.
        randomize: Preset of randomization.
        use_ycb: Whether there are household objects instead of the cube.
        num_objects: Number of objects on the table.
        random_yaw: Whether objects are turned about the vertical.

    Raises:
        ValueError: A value is unknown or out of range.
    """

    task: str | None = pp_env.ENV_ID
    fps: int = TimingConfig.control_hz
    episode_length: int = 400
    obs_type: str = PIXELS
    control_mode: str = "joint_pos"
    resolution: int | tuple[int, int] = RenderConfig.resolution
    preset: str = RenderConfig.preset
    cameras: list[str] = field(default_factory=lambda: [camera.name for camera in CAMERAS])
    grasp: str = GraspConfig.mode
    randomize: str = "none"
    use_ycb: bool = False
    num_objects: int = 1
    random_yaw: bool = TaskConfig.random_yaw

    def __post_init__(self) -> None:
        if self.obs_type not in _ENV_OBS_TYPES:
            raise ValueError(
                f"--env.obs_type must be one of {list(_ENV_OBS_TYPES)}, got {self.obs_type!r}"
            )
        if self.control_mode not in CONTROL_MODES:
            raise ValueError(
                f"--env.control_mode must be one of {list(CONTROL_MODES)}, "
                f"got {self.control_mode!r}"
            )
        width, height = self.scene().render.size
        image = PolicyFeature(FeatureType.VISUAL, (height, width, 3))
        columns = {
            ACTION: (ACTION, _vector(FeatureType.ACTION, CONTROL_MODES[self.control_mode].layout)),
            "agent_pos": (OBS_STATE, _vector(FeatureType.STATE, layout.OBSERVATION)),
        }
        if self.obs_type == STATE_ONLY:
            truth = _vector(FeatureType.ENV, layout.ENVIRONMENT_STATE)
            columns["environment_state"] = (OBS_ENV_STATE, truth)
        else:
            for name in self.cameras:
                columns[f"pixels/{name}"] = (f"{OBS_IMAGES}.{name}", image)
        self.features_map = {key: column for key, (column, _) in columns.items()}
        self.features = {key: feature for key, (_, feature) in columns.items()}

    @property
    def package_name(self) -> str:
        """Return the module that registers the environment."""
        return __name__

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Return the keywords of `gym.make`."""
        return {
            "max_episode_steps": self.episode_length,
            "render_mode": "rgb_array",
            "obs_type": self.obs_type,
            "control_mode": self.control_mode,
            "config": self.scene(),
        }

    def scene(self) -> PickPlaceConfig:
        """Return the environment's configuration.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        if self.randomize not in RANDOMIZATION_PRESETS:
            raise ValueError(
                f"--env.randomize must be one of {list(RANDOMIZATION_PRESETS)}, "
                f"got {self.randomize!r}"
            )
        try:
            cameras = choose_cameras(self.cameras)
        except ValueError as error:
            raise ValueError(f"--env.cameras {error}") from None
        return PickPlaceConfig(
            cameras=cameras,
            timing=default_timing("mujoco", self.fps),
            render=RenderConfig(resolution=self.resolution, preset=self.preset),
            task=TaskConfig(random_yaw=self.random_yaw),
            grasp=GraspConfig(mode=self.grasp),
            randomization=RANDOMIZATION_PRESETS[self.randomize],
            objects=YCB_OBJECTS if self.use_ycb else (),
            num_objects=self.num_objects,
        )


def make_env(
    render_mode: str, obs_type: str, control_mode: str, config: PickPlaceConfig
) -> gym.Env:
    """Return the environment with LeRobot's names.

    Args:
        render_mode: For Gymnasium.
        obs_type: As in `FrankaPickPlaceConfig`.
        control_mode: Likewise.
        config: Of the environment.
    """
    return LeRobotEnv(
        pp_env.PickPlaceEnv(
            obs_type=_ENV_OBS_TYPES[obs_type],
            render_mode=render_mode,
            control_mode=control_mode,
            config=config,
        )
    )


class LeRobotEnv(gym.Wrapper):
    """A wrapper that names observations as LeRobot does and accepts its reset options.

    LeRobot passes a reset option of its own to every rollout, which the environment would refuse.
    """

    def __init__(self, env: pp_env.PickPlaceEnv) -> None:
        super().__init__(env)
        if env.obs_type == "state":
            self.observation_space = gym.spaces.Dict(
                {
                    "agent_pos": env.observation_space,
                    "environment_state": layout.ENVIRONMENT_STATE.space(),
                }
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; options that are not the environment's have no effect."""
        own = {key: value for key, value in (options or {}).items() if key in task.OPTIONS}
        observation, info = self.env.reset(seed=seed, options=own)
        return self._named(observation, info), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply an action for one control period."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._named(observation, info), float(reward), terminated, truncated, info

    def _named(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if isinstance(observation, dict):
            return observation
        return {"agent_pos": observation, "environment_state": info["environment_state"]}


def _vector(kind: FeatureType, of: layout.Layout) -> PolicyFeature:
    return PolicyFeature(kind, (of.size,))
