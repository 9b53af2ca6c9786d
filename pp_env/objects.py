"""The objects that can stand on the table: shape, mass, friction, and how to grasp them."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pp_env import panda

Vec3 = tuple[float, float, float]
Shape = Literal["box", "cylinder"]

GRASP_DEPTH = 0.02  # m below the top: the pads are whole on the object, the palm stays clear
_BAND = 2e-4  # m by which a band stands out
GRASP_ROOM = 0.01  # m that the open gripper must have beside an object, both sides together
MAX_GRASPS = 16  # headings at which the hand fits around an object, at most


@dataclass(frozen=True)
class Band:
    """A printed band around an object, such as a label. It is only visible.

    Attributes:
        bottom: Height of its lower edge, as a share of the object's.
        top: Height of its upper edge, as a share of the object's.
        rgb: Colour in [0, 1].
    """

    bottom: float
    top: float
    rgb: Vec3


@dataclass(frozen=True)
class ObjectConfig:
    """An object: a box, or a cylinder that stands on its end. By default a cube.

    Its size decides how it is grasped: the gripper closes across the smaller horizontal extent,
    halfway up, or `GRASP_DEPTH` below the top of an object that is taller than twice that.

    Attributes:
        name: Unique name. Task texts use it without its catalogue number.
        size: Full extents along its own x, y and z axes, as it stands on the table, m.
        mass: Mass, kg.
        static_friction: Coulomb coefficient at rest.
        dynamic_friction: Coulomb coefficient while sliding.
        restitution: Share of the approach speed that a bounce gives back.
        asset: USD file that shows the object in Isaac Sim, below the asset root; None shows
            `shape`.
        shape: Collision shape, and visual shape where no file shows the object.
        rgb: Colour in [0, 1]; None samples a colour for every episode.
        mesh: OBJ or STL file that shows the object in MuJoCo; None shows `shape`.
        bands: Bands around `shape`; a file that shows the object has none.

    Raises:
        ValueError: The shape is unknown, a cylinder's first two extents differ, or the bands are
            not on the object, one above the other.
    """

    name: str = "cube"
    size: Vec3 = (0.04, 0.04, 0.04)
    mass: float = 0.1
    static_friction: float = 1.5
    dynamic_friction: float = 1.0
    restitution: float = 0.0
    asset: str | None = None
    shape: Shape = "box"
    rgb: Vec3 | None = None
    mesh: str | None = None
    bands: tuple[Band, ...] = ()

    def __post_init__(self) -> None:
        if self.shape not in ("box", "cylinder"):
            raise ValueError(f"shape must be 'box' or 'cylinder', got {self.shape!r}")
        if self.shape == "cylinder" and self.size[0] != self.size[1]:
            raise ValueError(f"a cylinder's size must begin with its diameter twice: {self.size}")
        heights = [height for band in self.bands for height in (band.bottom, band.top)]
        if heights != sorted(heights) or any(not 0 <= height <= 1 for height in heights):
            raise ValueError(f"bands must be from 0 to 1 and in order, got {heights}")

    @property
    def label(self) -> str:
        """The name in task texts: `005_tomato_soup_can` becomes "tomato soup can"."""
        return re.sub(r"^\d+_", "", self.name).replace("_", " ")

    def is_called(self, name: str) -> bool:
        """Return whether a text is the name or the label; underscores may stand for spaces."""
        return name == self.name or name.replace("_", " ") == self.label

    @property
    def height(self) -> float:
        """Height from the table to the object's top, m."""
        return self.size[2]

    def band_box(self, band: Band) -> tuple[float, Vec3]:
        """Return the height of a band's centre above the object's, m, and its full extents, m."""
        width, depth, height = self.size
        bottom = (band.bottom - 0.5) * height - (_BAND if band.bottom == 0 else 0)
        top = (band.top - 0.5) * height + (_BAND if band.top == 1 else 0)
        return (bottom + top) / 2, (width + 2 * _BAND, depth + 2 * _BAND, top - bottom)

    @property
    def radius(self) -> float:
        """Radius of the circle around the object's footprint, m."""
        width, depth, _ = self.size
        return width / 2 if self.shape == "cylinder" else math.hypot(width, depth) / 2

    @property
    def grasp_width(self) -> float:
        """Extent across which the gripper closes, m."""
        return min(self.size[:2])

    @property
    def fits_gripper(self) -> bool:
        """True if the open gripper fits around the object."""
        return self.grasp_width <= 2 * panda.FINGER_OPEN - GRASP_ROOM

    @property
    def grasp_height(self) -> float:
        """Height of the TCP above the object's centre in a grasp, m."""
        return max(0.0, self.height / 2 - GRASP_DEPTH)

    @property
    def grasp_yaws(self) -> np.ndarray:
        """Headings (n,) at which the hand fits, relative to the object's own x axis, rad.

        A hand closes along its y axis. It may hold a cylinder from any side (`MAX_GRASPS` are
        enough), a square box from four, any other box from the two that close across its narrow
        side.
        """
        if self.shape == "cylinder":
            return np.arange(MAX_GRASPS) * 2 * np.pi / MAX_GRASPS
        width, depth, _ = self.size
        if width == depth:
            return np.arange(4) * np.pi / 2
        return np.arange(2) * np.pi + (0.0 if depth < width else np.pi / 2)


def _ycb(
    name: str, size: Vec3, mass: float, rgb: Vec3, bands: tuple[Band, ...], shape: Shape = "box"
) -> ObjectConfig:
    # Its sibling Axis_Aligned_Physics has 003 to 006 only; the colliders are ours in any case.
    asset = f"Isaac/Props/YCB/Axis_Aligned/{name}.usd"
    return ObjectConfig(name, size, mass, asset=asset, shape=shape, rgb=rgb, bands=bands)


_CREAM: Vec3 = (0.93, 0.91, 0.84)
_TIN: Vec3 = (0.68, 0.69, 0.71)
_RED: Vec3 = (0.75, 0.13, 0.1)

# Sizes and masses as published: Calli et al., "Benchmarking in Manipulation Research: The YCB
# Object and Model Set", 2015, table of objects. Boxes stand on a long narrow side, because across
# the broad ones they are too wide for the gripper; that side runs along the object's x axis.
# The bands are not those of the real labels.
YCB_OBJECTS = (
    _ycb(
        "004_sugar_box", (0.175, 0.038, 0.089), 0.514, (0.93, 0.85, 0.45),
        (Band(0.25, 0.42, _CREAM), Band(0.42, 0.6, (0.12, 0.3, 0.62)), Band(0.6, 0.75, _CREAM)),
    ),
    _ycb(
        "005_tomato_soup_can", (0.066, 0.066, 0.101), 0.349, (0.75, 0.1, 0.1),
        (
            Band(0.0, 0.04, _TIN), Band(0.04, 0.46, _CREAM), Band(0.46, 0.54, (0.8, 0.62, 0.2)),
            Band(0.96, 1.0, _TIN),
        ), "cylinder",
    ),
    _ycb(
        "006_mustard_bottle", (0.095, 0.058, 0.190), 0.603, (0.9, 0.7, 0.05),
        (
            Band(0.18, 0.28, _RED), Band(0.28, 0.5, _CREAM), Band(0.5, 0.62, _RED),
            Band(0.9, 1.0, _RED),
        ),
    ),
    _ycb(
        "007_tuna_fish_can", (0.085, 0.085, 0.033), 0.171, (0.1, 0.5, 0.45),
        (Band(0.0, 0.1, _TIN), Band(0.4, 0.62, _CREAM), Band(0.9, 1.0, _TIN)), "cylinder",
    ),
    _ycb(
        "008_pudding_box", (0.110, 0.035, 0.089), 0.187, (0.45, 0.2, 0.12),
        (Band(0.3, 0.44, _CREAM), Band(0.44, 0.54, _RED), Band(0.54, 0.68, _CREAM)),
    ),
    _ycb(
        "010_potted_meat_can", (0.097, 0.050, 0.082), 0.370, (0.12, 0.2, 0.6),
        (Band(0.0, 0.05, _TIN), Band(0.38, 0.66, (0.9, 0.75, 0.2)), Band(0.95, 1.0, _TIN)),
    ),
)  # fmt: skip
