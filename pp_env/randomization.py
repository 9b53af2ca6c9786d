"""Domain randomization: which ranges are varied, and what was drawn for one episode.

Pure: nothing here knows a simulator. `PickPlaceConfig.randomization` holds the ranges, `sample`
draws from them, and simulators apply the `Variation` at reset.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pp_env.textures import PLAIN, TEXTURES

Vec3 = tuple[float, float, float]
Interval = tuple[float, float]

_TABLE_CANDIDATES = 8
_MIN_CONTRAST = 0.45  # between table and object, Euclidean in RGB
_MAX_DELAY = 30  # control periods


def _off(value: Any, unit: str, meaning: str) -> Any:
    """A field of `RandomizationConfig`, with the value at which nothing varies."""
    return dataclasses.field(default=value, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True)
class RandomizationConfig:
    """What varies from episode to episode, and how far. By default nothing does.

    A single number is the greatest change in either direction, an interval is drawn from
    uniformly, factors multiply the scene's own value.

    Raises:
        ValueError: A range is empty or makes no sense.
    """

    light_position: float = _off(0.0, "m", "position of the light, each axis, ±")
    light_intensity: Interval = _off((1.0, 1.0), "factor", "intensity of all lights")
    table_rgb: tuple[Interval, ...] = _off((), "0..1", "colour of the table: red, green, blue")
    table_textures: tuple[str, ...] = _off((), "-", "pattern on the table, one of")
    object_textures: tuple[str, ...] = _off((), "-", "pattern on the object, one of")
    camera_position: float = _off(0.0, "m", "position of the fixed camera, each axis, ±")
    camera_rotation: float = _off(0.0, "rad", "rotation of the fixed camera, about each axis, ±")
    hand_camera_position: float = _off(0.0, "m", "position of the camera on the hand, each axis, ±")
    hand_camera_rotation: float = _off(
        0.0, "rad", "rotation of the camera on the hand, about each axis, ±"
    )
    friction: Interval = _off((1.0, 1.0), "factor", "friction of the object")
    mass: Interval = _off((1.0, 1.0), "factor", "mass and inertia of the object")
    joint_pos_noise: Interval = _off(
        (0.0, 0.0), "rad", "standard deviation of the noise on observed joint positions"
    )
    joint_vel_noise: Interval = _off(
        (0.0, 0.0), "rad/s", "standard deviation of the noise on observed joint velocities"
    )
    action_delay: tuple[int, int] = _off(
        (0, 0), "control periods", "time from a command to its effect"
    )

    def __post_init__(self) -> None:
        for name in (
            "light_position", "camera_position", "camera_rotation", "hand_camera_position",
            "hand_camera_rotation",
        ):  # fmt: skip
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value >= 0, "a number from 0 up")
        for name in ("light_intensity", "friction", "mass"):
            low, high = self._interval(name)
            self._require(name, 0 < low <= high, "two factors, 0 < low <= high, as (0.8, 1.2)")
        for name in ("joint_pos_noise", "joint_vel_noise"):
            low, high = self._interval(name)
            self._require(name, 0 <= low <= high, "two numbers, 0 <= low <= high, as (0.0, 0.001)")
        low, high = self._interval("action_delay")
        whole = isinstance(low, int) and isinstance(high, int)
        self._require(
            "action_delay",
            whole and 0 <= low <= high <= _MAX_DELAY,
            f"two whole numbers of control periods, 0 <= low <= high <= {_MAX_DELAY}, as (0, 2)",
        )
        self._require(
            "table_rgb",
            len(self.table_rgb) in (0, 3)
            and all(len(i) == 2 and 0 <= i[0] <= i[1] <= 1 for i in self.table_rgb),
            "empty, or three intervals within 0..1, as ((0.5, 0.7), (0.3, 0.5), (0.1, 0.3))",
        )
        for name in ("table_textures", "object_textures"):
            known = set(getattr(self, name)) <= set(TEXTURES)
            self._require(name, known, f"some of {list(TEXTURES)}")

    @property
    def active(self) -> list[str]:
        """The names of the ranges that are on; none means that nothing is drawn."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]

    def _interval(self, name: str) -> tuple[Any, Any]:
        value = getattr(self, name)
        self._require(name, len(value) == 2 and np.isfinite(value).all(), "two finite numbers")
        return value

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(
                f"randomization.{name} must be {expected}, got {getattr(self, name)!r}; leave it "
                "out to vary nothing"
            )


RANDOMIZATION_PRESETS = {
    "none": RandomizationConfig(),
    "light": RandomizationConfig(
        light_position=0.2,
        light_intensity=(0.85, 1.05),
        table_rgb=((0.52, 0.68), (0.34, 0.46), (0.14, 0.26)),
        camera_position=0.01,
        camera_rotation=0.01,
        hand_camera_position=0.002,
        hand_camera_rotation=0.01,
        joint_pos_noise=(0.0, 0.0005),
        joint_vel_noise=(0.0, 0.005),
        action_delay=(0, 1),
    ),
    "full": RandomizationConfig(
        light_position=0.4,
        light_intensity=(0.7, 1.05),
        table_rgb=((0.1, 0.7), (0.1, 0.7), (0.1, 0.7)),
        table_textures=TEXTURES,
        object_textures=TEXTURES,
        camera_position=0.03,
        camera_rotation=0.04,
        hand_camera_position=0.004,
        hand_camera_rotation=0.03,
        friction=(0.7, 1.3),
        mass=(0.5, 2.0),
        joint_pos_noise=(0.0, 0.002),
        joint_vel_noise=(0.0, 0.02),
        action_delay=(0, 3),
    ),
}


@dataclass(frozen=True)
class CameraShift:
    """How one camera differs from the configuration.

    Attributes:
        name: Of the camera.
        position: Added to its position, m, in its parent's frame.
        rotation: Rotation vector, rad, in the camera's own axes (x right, y up, z backward).
    """

    name: str
    position: Vec3
    rotation: Vec3


@dataclass(frozen=True)
class Variation:
    """What was drawn for one episode; the default changes nothing.

    Attributes:
        light_position: Added to the light's position, m, world.
        light_intensity: Factor on all lights.
        table_rgb: Colour of the table in [0, 1]; empty is the configuration's.
        table_texture: One of `pp_env.textures.TEXTURES`.
        object_texture: Likewise.
        cameras: One per camera that moves.
        friction: Factor on the object's friction.
        mass: Factor on the object's mass and inertia.
        joint_pos_noise: Standard deviation, rad.
        joint_vel_noise: Standard deviation, rad/s.
        action_delay: Control periods.
        sensor_seed: Of the noise's generator.
    """

    light_position: Vec3 = (0.0, 0.0, 0.0)
    light_intensity: float = 1.0
    table_rgb: tuple[float, ...] = ()
    table_texture: str = PLAIN
    object_texture: str = PLAIN
    cameras: tuple[CameraShift, ...] = ()
    friction: float = 1.0
    mass: float = 1.0
    joint_pos_noise: float = 0.0
    joint_vel_noise: float = 0.0
    action_delay: int = 0
    sensor_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it; `pp_env.config.from_dict(Variation, ...)` is the way back."""
        return dataclasses.asdict(self)


def sample(
    rng: np.random.Generator,
    config: RandomizationConfig,
    object_rgb: np.ndarray,
    cameras: Mapping[str, bool],
) -> Variation | None:
    """Draws an episode's variation; None, and no draw at all, if nothing is to vary.

    As many numbers are drawn whatever is on, so switching one range on or off leaves the others
    as they were for that seed.

    Args:
        rng: Where all randomness comes from.
        config: The ranges.
        object_rgb: (3,) the object's colour, from which the table's keeps away.
        cameras: By name, whether the hand carries it.
    """
    if not config.active:
        return None
    light_position = _around_zero(rng, config.light_position)
    light_intensity = rng.uniform(*config.light_intensity)
    table_rgb = _table_rgb(rng, config, object_rgb)
    table_texture = _choice(rng, config.table_textures)
    object_texture = _choice(rng, config.object_textures)
    friction, mass = rng.uniform(*config.friction), rng.uniform(*config.mass)
    joint_pos_noise = rng.uniform(*config.joint_pos_noise)
    joint_vel_noise = rng.uniform(*config.joint_vel_noise)
    low, high = config.action_delay
    action_delay = low + int(rng.random() * (high - low + 1))
    sensor_seed = int(rng.integers(2**32))
    return Variation(
        light_position=light_position,
        light_intensity=light_intensity,
        table_rgb=table_rgb,
        table_texture=table_texture,
        object_texture=object_texture,
        cameras=tuple(_shift(rng, config, name, carried) for name, carried in cameras.items()),
        friction=friction,
        mass=mass,
        joint_pos_noise=joint_pos_noise,
        joint_vel_noise=joint_vel_noise,
        action_delay=action_delay,
        sensor_seed=sensor_seed,
    )


def preset_table() -> str:
    """A Markdown table: what varies in each preset."""
    presets = [name for name in RANDOMIZATION_PRESETS if name != "none"]
    rows = [f"| range | meaning | unit | {' | '.join(f'`{p}`' for p in presets)} |"]
    rows.append("|---|---|---" + "|---" * len(presets) + "|")
    for field in dataclasses.fields(RandomizationConfig):
        cells = [_cell(getattr(RANDOMIZATION_PRESETS[p], field.name), field) for p in presets]
        meaning, unit = field.metadata["meaning"], field.metadata["unit"]
        rows.append(f"| `{field.name}` | {meaning} | {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(value: Any, field: dataclasses.Field) -> str:
    if value == field.default:
        return "-"
    if not isinstance(value, tuple):
        return f"{value:g}"
    if isinstance(value[0], tuple):
        return ", ".join(f"{low:g}..{high:g}" for low, high in value)
    if isinstance(value[0], str):
        return ", ".join(value)
    return f"{value[0]:g}..{value[1]:g}"


def _shift(
    rng: np.random.Generator, config: RandomizationConfig, name: str, carried: bool
) -> CameraShift:
    position = config.hand_camera_position if carried else config.camera_position
    rotation = config.hand_camera_rotation if carried else config.camera_rotation
    return CameraShift(name, _around_zero(rng, position), _around_zero(rng, rotation))


def _table_rgb(
    rng: np.random.Generator, config: RandomizationConfig, object_rgb: np.ndarray
) -> tuple[float, ...]:
    """The first of several draws that stands out from the object, else the one that does most."""
    draws = rng.random((_TABLE_CANDIDATES, 3))
    if not config.table_rgb:
        return ()
    low, high = np.transpose(config.table_rgb)
    candidates = low + draws * (high - low)
    contrast = np.linalg.norm(candidates - object_rgb, axis=1)
    return tuple(candidates[np.argmax(np.minimum(contrast, _MIN_CONTRAST))].tolist())


def _around_zero(rng: np.random.Generator, amplitude: float) -> Vec3:
    x, y, z = rng.uniform(-amplitude, amplitude, size=3).tolist()
    return x, y, z


def _choice(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    draw = rng.random()
    return names[int(draw * len(names))] if names else PLAIN
