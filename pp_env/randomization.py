"""Domain randomization: the ranges that vary, and the values sampled for one episode.

Pure functions that depend on no simulator. `PickPlaceConfig.randomization` holds the ranges,
`sample` samples from them, and simulators apply the `Variation` at reset.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pp_env.colors import first_apart, variants
from pp_env.textures import PLAIN, TABLE_TEXTURES, TEXTURES, WOOD

Vec3 = tuple[float, float, float]
Interval = tuple[float, float]

_TABLE_CANDIDATES = 8  # sampled colours of the table, of which one is taken
_MAX_DELAY = 30  # control periods


def _off(value: Any, unit: str, meaning: str) -> Any:
    """Return a field of `RandomizationConfig`; nothing varies at its default value."""
    return dataclasses.field(default=value, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True)
class RandomizationConfig:
    """The ranges that vary from episode to episode. By default nothing varies.

    A single number is the greatest change in either direction. An interval is sampled uniformly.
    Factors multiply the scene's own value. Every field's metadata has its unit and meaning.

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
        for name, known in (("table_textures", TABLE_TEXTURES), ("object_textures", TEXTURES)):
            self._require(name, set(getattr(self, name)) <= set(known), f"some of {list(known)}")

    @property
    def active(self) -> list[str]:
        """Names of the ranges that are on; with none, nothing is sampled."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]

    def _interval(self, name: str) -> tuple[Any, Any]:
        """Return the field of that name, checked to be two finite numbers."""
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
        table_rgb=((0.64, 0.8), (0.46, 0.6), (0.28, 0.42)),
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
        table_textures=TABLE_TEXTURES,
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
    """The difference of one camera from the configuration.

    Attributes:
        name: Name of the camera.
        position: Offset of its position, m, in its parent's frame.
        rotation: Rotation vector, rad, in the camera's own axes (x right, y up, z backward).
    """

    name: str
    position: Vec3
    rotation: Vec3


@dataclass(frozen=True)
class Variation:
    """The values sampled for one episode; the default changes nothing.

    Attributes:
        light_position: Offset of the light's position, m, world frame.
        light_intensity: Factor on all lights.
        table_rgb: Colour of the table in [0, 1]; empty for the configuration's colour.
        table_texture: Pattern on the table, one of `pp_env.textures.TABLE_TEXTURES`.
        object_texture: Pattern on the object, one of `pp_env.textures.TEXTURES`.
        cameras: One shift per camera.
        friction: Factor on the object's friction.
        mass: Factor on the object's mass and inertia.
        joint_pos_noise: Standard deviation of the noise on observed joint positions, rad.
        joint_vel_noise: Standard deviation of the noise on observed joint velocities, rad/s.
        action_delay: Time from a command to its effect, control periods.
        sensor_seed: Seed of the noise's generator.
    """

    light_position: Vec3 = (0.0, 0.0, 0.0)
    light_intensity: float = 1.0
    table_rgb: tuple[float, ...] = ()
    table_texture: str = WOOD
    object_texture: str = PLAIN
    cameras: tuple[CameraShift, ...] = ()
    friction: float = 1.0
    mass: float = 1.0
    joint_pos_noise: float = 0.0
    joint_vel_noise: float = 0.0
    action_delay: int = 0
    sensor_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON; `pp_env.config.from_dict(Variation, ...)` reverses it."""
        return dataclasses.asdict(self)


def sample(
    rng: np.random.Generator,
    config: RandomizationConfig,
    other_rgb: np.ndarray,
    cameras: Mapping[str, bool],
) -> Variation | None:
    """Sample an episode's variation; return None, and use no random number, if nothing varies.

    The number of random numbers does not depend on which ranges are on, so switching one on or off
    leaves the others as they were for that seed.

    Args:
        rng: Source of all randomness.
        config: The ranges.
        other_rgb: (n, 3) colours of object and marker in [0, 1], from which the table's differs.
        cameras: By camera name, True if the hand carries the camera.
    """
    if not config.active:
        return None
    light_position = _sample_offset(rng, config.light_position)
    light_intensity = rng.uniform(*config.light_intensity)
    table_rgb = _sample_table_rgb(rng, config, other_rgb)
    table_texture = _sample_choice(rng, config.table_textures, WOOD)
    object_texture = _sample_choice(rng, config.object_textures, PLAIN)
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
        cameras=tuple(
            _sample_camera_shift(rng, config, name, carried) for name, carried in cameras.items()
        ),
        friction=friction,
        mass=mass,
        joint_pos_noise=joint_pos_noise,
        joint_vel_noise=joint_vel_noise,
        action_delay=action_delay,
        sensor_seed=sensor_seed,
    )


def preset_table() -> str:
    """Return a Markdown table of the ranges in each preset."""
    presets = [name for name in RANDOMIZATION_PRESETS if name != "none"]
    rows = [f"| range | meaning | unit | {' | '.join(f'`{p}`' for p in presets)} |"]
    rows.append("|---|---|---" + "|---" * len(presets) + "|")
    for field in dataclasses.fields(RandomizationConfig):
        cells = [_cell(getattr(RANDOMIZATION_PRESETS[p], field.name), field) for p in presets]
        meaning, unit = field.metadata["meaning"], field.metadata["unit"]
        rows.append(f"| `{field.name}` | {meaning} | {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(value: Any, field: dataclasses.Field) -> str:
    """Return a range as text for `preset_table`; "-" if it does not vary."""
    if value == field.default:
        return "-"
    if not isinstance(value, tuple):
        return f"{value:g}"
    if isinstance(value[0], tuple):
        return ", ".join(f"{low:g}..{high:g}" for low, high in value)
    if isinstance(value[0], str):
        return ", ".join(value)
    return f"{value[0]:g}..{value[1]:g}"


def _sample_camera_shift(
    rng: np.random.Generator, config: RandomizationConfig, name: str, carried: bool
) -> CameraShift:
    position = config.hand_camera_position if carried else config.camera_position
    rotation = config.hand_camera_rotation if carried else config.camera_rotation
    return CameraShift(name, _sample_offset(rng, position), _sample_offset(rng, rotation))


def _sample_table_rgb(
    rng: np.random.Generator, config: RandomizationConfig, other_rgb: np.ndarray
) -> tuple[float, ...]:
    """Sample a colour that looks different from the others; empty if the table's does not vary."""
    samples = rng.random((_TABLE_CANDIDATES, 3))
    if not config.table_rgb:
        return ()
    low, high = np.transpose(config.table_rgb)
    return tuple(first_apart(low + variants(samples) * (high - low), other_rgb).tolist())


def _sample_offset(rng: np.random.Generator, amplitude: float) -> Vec3:
    x, y, z = rng.uniform(-amplitude, amplitude, size=3).tolist()
    return x, y, z


def _sample_choice(rng: np.random.Generator, names: tuple[str, ...], default: str) -> str:
    share = rng.random()
    return names[int(share * len(names))] if names else default
