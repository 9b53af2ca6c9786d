"""Every number of the scene, the timing, the task and the images, with its unit.

The world frame is the robot's base: x forward, y left, z up, metres. The defaults are the
project's reference scene; `dataclasses.replace` makes a variant. A dataset stores the configuration
it was recorded with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from pp_env import panda
from pp_env.names import did_you_mean
from pp_env.objects import GRASP_ROOM, ObjectConfig, Vec3
from pp_env.randomization import Interval, RandomizationConfig

T = TypeVar("T")

HOME_JOINT_POS = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)  # rad
HOME_TCP = (0.307, 0.0, 0.487)  # m, the point between the finger pads at HOME
SETTLE_TIME = 0.2  # s of physics at reset, for the object to come to rest


@dataclass(frozen=True)
class TimingConfig:
    """Rates of control and physics. A control period is one `env.step`, one command and one frame.

    Attributes:
        control_hz: Commands and camera frames per second.
        physics_hz: Physics steps per second, a whole multiple of `control_hz`.

    Raises:
        ValueError: `control_hz` does not divide `physics_hz`.
    """

    control_hz: int = 30
    physics_hz: int = 240

    def __post_init__(self) -> None:
        if self.control_hz < 1 or self.physics_hz % self.control_hz:
            fitting = [hz for hz in range(5, self.physics_hz + 1) if self.physics_hz % hz == 0]
            raise ValueError(
                f"control_hz (--fps) must divide the physics rate of {self.physics_hz} Hz, "
                f"got {self.control_hz}; these do: {fitting}"
            )

    @property
    def substeps(self) -> int:
        """Number of physics steps in one control period."""
        return self.physics_hz // self.control_hz

    @property
    def control_period(self) -> float:
        """Time between two commands, s."""
        return 1.0 / self.control_hz


@dataclass(frozen=True)
class TableConfig:
    """The table: a box fixed to the world.

    Attributes:
        center: Centre of the box, m, world frame.
        size: Full extents along x, y and z, m.
        rgb: Colour in [0, 1].
    """

    center: Vec3 = (0.5, 0.0, 0.4)
    size: Vec3 = (0.6, 0.8, 0.02)
    rgb: Vec3 = (0.72, 0.53, 0.35)

    @property
    def top_z(self) -> float:
        """Height of the table's surface, m."""
        return self.center[2] + self.size[2] / 2

    def holds(self, xy: np.ndarray) -> bool:
        """Return True if the point `xy` (2,), m, world frame, lies above the table."""
        return all(abs(float(xy[i]) - self.center[i]) <= self.size[i] / 2 for i in (0, 1))


@dataclass(frozen=True)
class Disc:
    """A flat disc that is only visible: nothing collides with it.

    Attributes:
        radius: Radius as a share of the task's `place_tolerance`.
        height: Thickness, m.
        rgb: Colour in [0, 1].
    """

    radius: float
    height: float
    rgb: Vec3


@dataclass(frozen=True)
class MarkerConfig:
    """The place marker: discs on the table. The outermost is as large as the place tolerance."""

    discs: tuple[Disc, ...] = (
        Disc(radius=1.0, height=0.001, rgb=(0.9, 0.9, 0.85)),
        Disc(radius=0.7, height=0.002, rgb=(0.1, 0.45, 0.85)),
    )

    @property
    def colors(self) -> list[Vec3]:
        """Colours of the discs."""
        return [disc.rgb for disc in self.discs]


@dataclass(frozen=True)
class ServoConfig:
    """The position servos: stiff enough to follow the waypoints, soft enough for the physics step.

    Attributes:
        arm_stiffness: Per arm joint, N m/rad.
        arm_damping: Per arm joint, N m s/rad: critical at zero joint angles.
        finger_stiffness: N/m.
        finger_damping: N s/m.
        finger_force: Greatest force of a finger's servo, N, as in `franka_description`.
    """

    arm_stiffness: tuple[float, ...] = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
    arm_damping: tuple[float, ...] = (56.75, 136.27, 45.36, 59.91, 32.01, 34.78, 29.14)
    finger_stiffness: float = 1000.0
    finger_damping: float = 21.44
    finger_force: float = 20.0


@dataclass(frozen=True)
class UsdLightConfig:
    """Lights of the USD scene, in USD's units of intensity.

    Their ratio is 3000 : 5000 : 15000. They are scaled so that the table gets about as much light
    as in Isaac Lab's lift scene, which has one dome of 3000 with colour 0.75. They have not been
    judged by eye yet: `python -m pp_collect.isaac_check` reports how much of an image is clipped.

    Attributes:
        dome: Intensity of the dome light.
        distant: Intensity of the distant light.
        sphere: Intensity of the sphere light.
    """

    dome: float = 1400.0
    distant: float = 2300.0
    sphere: float = 7000.0


@dataclass(frozen=True)
class MujocoLightConfig:
    """Lights of the MuJoCo scene: a headlight at the camera and a spot light, both grey.

    Attributes:
        head_ambient: Intensity from everywhere, in [0, 1], as are all intensities.
        head_diffuse: Diffuse intensity of the headlight.
        head_specular: Specular intensity of the headlight.
        key_position: Where the spot light is, m, world.
        key_direction: Where it points, world; need not be normalised.
        key_cutoff_deg: Half the opening angle of its cone.
        key_exponent: Fall-off from the cone's axis to its edge.
        key_attenuation: Fall-off with the distance: constant, linear and quadratic term.
        key_diffuse: Diffuse intensity of the spot light.
        key_specular: Specular intensity of the spot light.
    """

    head_ambient: float = 0.42
    head_diffuse: float = 0.2
    head_specular: float = 0.0
    key_position: Vec3 = (0.3, 0.3, 3.0)
    key_direction: Vec3 = (0.2, -0.3, -2.6)
    key_cutoff_deg: float = 45.0
    key_exponent: float = 3.0
    key_attenuation: Vec3 = (1.0, 0.0, 0.0)
    key_diffuse: float = 0.42
    key_specular: float = 0.15


# Not a field of `PickPlaceConfig`: datasets store that configuration and compare it on --resume.
MUJOCO_LIGHTS = MujocoLightConfig()


# Factor on the spot light's distance from the table in MuJoCo's Filament renderer. Light falls with
# the square of the distance there: from nearby it is too bright on the arm. From five times as far
# the hand's shadow is missing.
FILAMENT_KEY_DISTANCE = 2.0


@dataclass(frozen=True)
class CameraConfig:
    """A pinhole camera with square pixels.

    Attributes:
        name: Unique name, also the last part of its dataset key.
        parent: Body that carries the camera.
        position: Position in the parent's frame, m.
        forward: Viewing direction in the parent's frame; need not be normalised.
        up: Approximate upward direction of the image in the parent's frame.
        focal_length_mm: Focal length; with `aperture_mm` it sets the field of view.
        aperture_mm: Width of the sensor. Its height follows from the image's aspect ratio.
    """

    name: str
    parent: Literal["world", "panda_hand"]
    position: Vec3
    forward: Vec3
    up: Vec3
    focal_length_mm: float
    aperture_mm: float = 20.955

    @property
    def fov_deg(self) -> float:
        """Horizontal field of view, degrees."""
        return self._fov_deg(self.aperture_mm)

    def vertical_fov_deg(self, size: tuple[int, int]) -> float:
        """Return the vertical field of view, degrees, of images of size (width, height)."""
        return self._fov_deg(self.vertical_aperture_mm(size))

    def vertical_aperture_mm(self, size: tuple[int, int]) -> float:
        """Return the height of the sensor, mm, for images of size (width, height)."""
        width, height = size
        return self.aperture_mm * height / width

    def _fov_deg(self, aperture_mm: float) -> float:
        return math.degrees(2 * math.atan(aperture_mm / (2 * self.focal_length_mm)))

    def rotation(self) -> np.ndarray:
        """Return the camera's axes in the parent's frame, (3, 3): columns right, up, backward.

        This is the convention of OpenGL and USD.
        """
        forward = np.array(self.forward) / np.linalg.norm(self.forward)
        right = np.cross(forward, self.up)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(right, forward), -forward], axis=1)

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """Return the pinhole matrix K (3, 3), pixels, for images of size (width, height)."""
        width, height = size
        focal = self.focal_length_mm / self.aperture_mm * width
        return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def _tilted_down(position: Vec3, towards: Vec3, tilt_deg: float) -> Vec3:
    """Return the unit vector that is `tilt_deg` off straight down, towards a point, world frame."""
    dx, dy = towards[0] - position[0], towards[1] - position[1]
    distance, tilt = math.hypot(dx, dy), math.radians(tilt_deg)
    return (
        math.sin(tilt) * dx / distance,
        math.sin(tilt) * dy / distance,
        -math.cos(tilt),
    )


_HIGH_POSITION = (0.3, -0.3, 1.3)

NAMED_CAMERAS = (
    CameraConfig(
        name="cam_high",
        parent="world",
        position=_HIGH_POSITION,
        forward=_tilted_down(_HIGH_POSITION, TableConfig().center, 25.0),
        up=(1.0, 0.0, 0.0),
        focal_length_mm=14.0,
    ),
    CameraConfig(
        name="cam_wrist",
        parent="panda_hand",
        # At x = 0.05 the hand's own shell hides the TCP, so the camera is a little further out.
        position=(0.07, 0.0, 0.05),
        forward=(-0.57, 0.0, 0.82),
        up=(1.0, 0.0, 0.0),
        focal_length_mm=10.0,
    ),
    CameraConfig(
        name="cam_front",  # opposite the robot, high enough to look over what the hand holds
        parent="world",
        position=(1.35, 0.0, 1.1),
        forward=(-0.8, 0.0, -0.6),
        up=(0.0, 0.0, 1.0),
        focal_length_mm=19.5,
    ),
    CameraConfig(
        name="cam_side",  # from the robot's left
        parent="world",
        position=(0.5, 1.0, 1.05),
        forward=(-0.03, -0.8, -0.58),
        up=(0.0, 0.0, 1.0),
        focal_length_mm=23.0,
    ),
)
CAMERAS = NAMED_CAMERAS[:2]  # what is rendered unless others are chosen


def choose_cameras(names: Sequence[str]) -> tuple[CameraConfig, ...]:
    """Return the named cameras, in the order of `names`.

    Raises:
        ValueError: A name is unknown or given twice, or there is none.
    """
    known = {camera.name: camera for camera in NAMED_CAMERAS}
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        got = " ".join(names) or "none"
        raise ValueError(
            f"must be some of {', '.join(known)}, each once, got {got}{did_you_mean(names, known)}"
        )
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class RenderPreset:
    """A compromise between the quality of an image and the time to render it.

    Attributes:
        samples: Samples per pixel for smooth edges; 0 is off.
        shadow_map: Edge of the shadow map in texels; 0 is no shadows.
        mesh_detail: Share of the robot's visual triangles that is kept, in (0, 1].
        exact_shadows: True casts the shadows of the visual meshes, False those of the simpler
            collision shapes.
        renderer: "opengl", or "filament": MuJoCo 4's, which takes Vulkan, for colour images alone.
    """

    samples: int
    shadow_map: int
    mesh_detail: float
    exact_shadows: bool = False
    renderer: Literal["opengl", "filament"] = "opengl"

    @property
    def samples_per_axis(self) -> int:
        """Samples of a pixel side by side, where they are a square."""
        return math.isqrt(max(self.samples, 1))


RENDER_PRESETS = {
    "fast": RenderPreset(samples=0, shadow_map=0, mesh_detail=0.04),
    "default": RenderPreset(samples=0, shadow_map=400, mesh_detail=0.04),
    "pretty": RenderPreset(samples=4, shadow_map=4096, mesh_detail=1.0, exact_shadows=True),
    "filament": RenderPreset(
        samples=4, shadow_map=2048, mesh_detail=1.0, exact_shadows=True, renderer="filament"
    ),
}


@dataclass(frozen=True)
class RenderConfig:
    """Size and quality of the images. All cameras have the same.

    Attributes:
        resolution: Width and height in pixels, or one number for both. The horizontal field of view
            is the same for all sizes; an image that is not square shows less or more above and
            below.
        preset: A name in `RENDER_PRESETS`.

    Raises:
        ValueError: The preset is unknown, or the resolution is odd or out of range.
    """

    resolution: int | tuple[int, int] = 512
    preset: str = "default"

    def __post_init__(self) -> None:
        if self.preset not in RENDER_PRESETS:
            raise ValueError(
                f"preset must be one of {sorted(RENDER_PRESETS)}, got {self.preset!r}"
                f"{did_you_mean([self.preset], RENDER_PRESETS)}"
            )
        if any(pixels % 2 or not 32 <= pixels <= 2048 for pixels in self.size):
            raise ValueError(
                "resolution must be an even number of pixels from 32 to 2048 (video needs even "
                f"sizes), or two of them, got {self.resolution}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an image, pixels."""
        if isinstance(self.resolution, Sequence):
            width, height = self.resolution
            return width, height
        return self.resolution, self.resolution


@dataclass(frozen=True)
class TaskConfig:
    """Ranges of an episode's start, and conditions of its success.

    Attributes:
        x_range: Interval from which the x of picks and places is sampled, m, world frame.
        y_range: Interval from which their y is sampled, m, world frame.
        min_distance: Least distance between pick and place in the plane, m.
        color_range: Interval from which each channel of the object's colour is sampled, in [0, 1].
        place_tolerance: Greatest distance of the object from the target in the plane, m.
        height_tolerance: Greatest distance of its centre from its height at rest on the table, m.
        rest_speed: Greatest speed of an object at rest, m/s.
        home_tolerance: Greatest distance of each arm joint from HOME, rad.
        open_tolerance: Greatest distance of each finger from fully open, m.
        require_home: True if success requires an open gripper and the arm at HOME; False if it is
            enough that the object is released and at rest on the target.
        random_yaw: True turns objects about the vertical by a sampled angle.
        spacing: Least gap between two objects, and beside the gripper at work, m.
        travel_height: Least height above the grasp at which the hand moves between places, m.
    """

    x_range: Interval = (0.3, 0.7)
    y_range: Interval = (-0.3, 0.3)
    min_distance: float = 0.10
    color_range: Interval = (0.1, 0.9)
    place_tolerance: float = 0.05
    height_tolerance: float = 0.01
    rest_speed: float = 0.02
    home_tolerance: float = 0.05
    open_tolerance: float = 0.005
    require_home: bool = True
    random_yaw: bool = False
    spacing: float = 0.02
    travel_height: float = 0.12


@dataclass(frozen=True)
class GraspConfig:
    """Conditions under which a closed gripper holds the object (`pp_env.sim.grasp`).

    Attributes:
        mode: "fixed_joint" attaches the object to the hand, "friction" leaves it to contact.
        closed_below: A finger target below this is a command to close, m.
        stopped_speed: Fingers that approach each other slower than this have stopped, m/s.
        max_distance_xy: Greatest horizontal distance from `panda_hand` to the object's centre, m.
        max_distance_z: Greatest vertical distance from `panda_hand` to the height at which the
            object is grasped, m.
        margin: Greatest distance of the TCP outside the object's box, m.
        requires_touch: True if the fingers must be as near to each other as the object lets them;
            False as in datasets before revision 3, where it was enough that each had stopped.

    Raises:
        ValueError: The mode is unknown.
    """

    mode: Literal["fixed_joint", "friction"] = "fixed_joint"
    closed_below: float = panda.FINGER_OPEN / 2
    stopped_speed: float = 0.01
    max_distance_xy: float = 0.08
    max_distance_z: float = 0.15
    margin: float = 0.005
    requires_touch: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("fixed_joint", "friction"):
            raise ValueError(f"grasp must be 'fixed_joint' or 'friction', got {self.mode!r}")


@dataclass(frozen=True)
class PickPlaceConfig:
    """The whole environment: the scene of any simulator follows from this one value.

    Attributes:
        timing: Rates of control and physics.
        table: The table.
        object: The only object, where no `objects` are given.
        marker: The place marker.
        servo: The position servos of arm and fingers.
        usd_lights: Lights of the USD scene.
        floor_rgb: Colour of the floor in [0, 1].
        cameras: The cameras, such as some of `NAMED_CAMERAS`; `render` shows the image of the
            first.
        render: Size and quality of the images.
        task: Ranges of an episode's start, and conditions of its success.
        grasp: Conditions under which a closed gripper holds the object.
        randomization: What varies from episode to episode.
        objects: A pool from which every episode samples its target, among those that fit the
            gripper; empty for the one `object`.
        num_objects: Number of objects on the table. Those beside the target come from the pool,
            too.

    Raises:
        ValueError: Two cameras or two objects share a name, the objects are fewer than
            `num_objects`, or none of them fits the gripper.
    """

    timing: TimingConfig = field(default_factory=TimingConfig)
    table: TableConfig = field(default_factory=TableConfig)
    object: ObjectConfig = field(default_factory=ObjectConfig)
    marker: MarkerConfig = field(default_factory=MarkerConfig)
    servo: ServoConfig = field(default_factory=ServoConfig)
    usd_lights: UsdLightConfig = field(default_factory=UsdLightConfig)
    floor_rgb: Vec3 = (0.5, 0.51, 0.53)
    cameras: tuple[CameraConfig, ...] = CAMERAS
    render: RenderConfig = field(default_factory=RenderConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    grasp: GraspConfig = field(default_factory=GraspConfig)
    randomization: RandomizationConfig = field(default_factory=RandomizationConfig)
    objects: tuple[ObjectConfig, ...] = ()
    num_objects: int = 1

    def __post_init__(self) -> None:
        cameras = [camera.name for camera in self.cameras]
        if len(set(cameras)) < len(cameras):
            raise ValueError(f"cameras must have different names, got {cameras}")
        names = [obj.name for obj in self.object_pool]
        if len(set(names)) < len(names):
            raise ValueError(f"objects must have different names, got {names}")
        if not 1 <= self.num_objects <= len(names):
            raise ValueError(
                f"num_objects (--num-objects) must be from 1 to {len(names)}, because no object is "
                f"there twice and the object pool is {names}, got {self.num_objects}; "
                "--use-ycb has six"
            )
        if not any(obj.fits_gripper for obj in self.object_pool):
            most = 2 * panda.FINGER_OPEN - GRASP_ROOM
            raise ValueError(f"an object must be at most {most:.3f} m wide, but none is of {names}")

    @property
    def object_pool(self) -> tuple[ObjectConfig, ...]:
        """The objects of the scene, on the table or parked."""
        return self.objects or (self.object,)

    def target_index(self, name: str) -> int:
        """Return the index in `object_pool` of the object with a name or label.

        Args:
            name: Name or label; underscores stand for spaces, as in "tomato_soup_can".

        Raises:
            ValueError: There is none, or it does not fit the gripper.
        """
        graspable = [obj.name for obj in self.object_pool if obj.fits_gripper]
        for index, obj in enumerate(self.object_pool):
            if not obj.is_called(name):
                continue
            if not obj.fits_gripper:
                raise ValueError(
                    f"{obj.label} is {1e3 * obj.grasp_width:.0f} mm wide, more than the gripper "
                    f"can take; it may stand beside the object, which must be one of {graspable}"
                )
            return index
        known = [form for obj in self.object_pool for form in (obj.name, obj.label)]
        raise ValueError(
            f"object must be one of {graspable}, got {name!r}"
            f"{did_you_mean([name, name.replace('_', ' ')], known)}"
        )

    def rest_z_of(self, obj: ObjectConfig) -> float:
        """Return the height of an object's centre when it stands on the table, m, world frame."""
        return self.table.top_z + obj.size[2] / 2

    def camera(self, name: str) -> CameraConfig:
        """Return the camera of that name.

        Raises:
            ValueError: There is none.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ValueError(f"camera must be one of {[c.name for c in self.cameras]}, got {name!r}")


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Return the configuration of a dictionary that `dataclasses.asdict`, or JSON, has made of it.

    Args:
        kind: The dataclass.
        values: The dictionary; missing keys keep their defaults.

    Raises:
        ValueError: A key is unknown, or a value is out of range.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(f"{kind.__name__} has no {unknown}, only {names}")
    return kind(**{name: _convert(hints[name], value) for name, value in values.items()})


def _convert(hint: Any, value: Any) -> Any:
    """Return a value of the type hint: dataclasses for dictionaries, tuples for lists."""
    if is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_convert(inner, item) for item in value)
    if NoneType in get_args(hint) and value is not None:
        return _convert(get_args(hint)[0], value)
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples
