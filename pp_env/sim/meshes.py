"""Load the Panda's meshes, from the gymnasium-robotics wheel, and fit meshes to objects."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from pp_env import rotation
from pp_env.objects import ObjectConfig

Kind = Literal["visual", "collision"]

SIZE_TOLERANCE = 0.15  # relative error allowed between a file's box and the published size

_MIN_TRIANGLES = 600  # per part, so that the fingers, the smallest, are not simplified
_AGGRESSIVENESS = 4  # of the simplification; the library's default of 7 leaves spikes and holes
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def path(kind: Kind, part: str) -> Path:
    """Return the STL file of a part of the robot: "link0" to "link7", "hand" or "finger".

    Raises:
        ImportError: The package that ships the meshes is not installed.
    """
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None or not package.submodule_search_locations:
        raise ImportError(
            "the Panda's meshes come with the package gymnasium-robotics, which is not installed; "
            "try 'pip install gymnasium-robotics'"
        )
    root = Path(package.submodule_search_locations[0])
    meshes = root / "envs" / "assets" / "kitchen_franka" / "franka_assets" / "meshes"
    return meshes / kind / f"{part}.stl"


def load(kind: Kind, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Load vertices (n, 3) float32, m, and triangles (m, 3) int32, with equal corners merged."""
    triangles = np.fromfile(path(kind, part), dtype=_STL_TRIANGLE, offset=84)
    corners = triangles["corners"].reshape(-1, 3)
    order = np.lexsort(corners.T[::-1])  # a fifth of the time of np.unique for rows
    ordered = corners[order]
    is_first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    faces = np.empty(len(corners), dtype=np.int32)
    faces[order] = np.cumsum(is_first) - 1
    return ordered[is_first], faces.reshape(-1, 3)


@cache
def simplified(kind: Kind, part: str, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """Load a part with the share `detail` of its triangles, but at least a few hundred.

    Both arrays are shared by all callers, so they cannot be written to.
    """
    import fast_simplification

    vertices, faces = load(kind, part)
    target = max(round(len(faces) * detail), _MIN_TRIANGLES)
    if target < len(faces):
        vertices, faces = fast_simplification.simplify(
            vertices, faces, target_count=target, agg=_AGGRESSIVENESS
        )[:2]
    for values in (vertices, faces):
        values.flags.writeable = False
    return vertices, faces


def fit(file: str, obj: ObjectConfig) -> tuple[np.ndarray, np.ndarray]:
    """Compute the pose at which a mesh fills an object's box.

    Scans are not aligned with their axes: the mesh is turned about its z axis until its bounding
    box is smallest, and then by quarter turns until that box matches the object's.

    Args:
        file: OBJ or STL file, m.
        obj: The object.

    Returns:
        Quaternion (4,) wxyz and position (3,), m, of the mesh's frame in the object's.

    Raises:
        ValueError: The file is missing, or the mesh has another size.
    """
    vertices = _vertices(Path(file))
    upright = min(
        (rotation.about_z(angle) for angle in np.radians(np.arange(0.0, 90.0, 0.5))),
        key=lambda turn: float(np.prod(np.ptp(rotation.rotate(turn, vertices), axis=0)[:2])),
    )
    extent = np.ptp(rotation.rotate(upright, vertices), axis=0)
    turn = quarter_turns(extent, np.array(obj.size))
    if turn is None:
        raise ValueError(
            f"{obj.name} should measure {obj.size} m in some order, but {file} measures "
            f"{tuple(np.round(extent, 4).tolist())}"
        )
    quat = rotation.multiply(rotation.from_matrix(turn), upright)
    turned = rotation.rotate(quat, vertices)
    return quat, -(turned.max(0) + turned.min(0)) / 2


def quarter_turns(
    extent: np.ndarray, size: np.ndarray, tolerance: float = SIZE_TOLERANCE
) -> np.ndarray | None:
    """Find the quarter turns, as a rotation matrix (3, 3), that give a box another box's extents.

    Args:
        extent: (3,) the extents of the box, m.
        size: (3,) the required extents, m.
        tolerance: Relative difference allowed in each extent.

    Returns:
        The turn that matches best, and of those that match alike the smallest; None if none does.
    """
    orders = ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1))
    errors = [float(np.abs(extent[list(order)] / size - 1).max()) for order in orders]
    error, order = min(zip(errors, orders, strict=True), key=lambda pair: round(pair[0], 2))
    if error >= tolerance:
        return None
    turn = np.eye(3)[list(order)]
    turn[0] *= round(np.linalg.det(turn))  # a swap of two axes is a reflection
    return turn


def texture(file: str) -> Path | None:
    """Return the texture image beside an OBJ file of the YCB set; None if there is none."""
    image = Path(file).with_name("texture_map.png")
    return image if file.endswith(".obj") and image.is_file() else None


def ycb_mesh(folder: Path, name: str) -> Path:
    """Return the mesh of an object in a folder laid out like the YCB set's own downloads.

    Raises:
        FileNotFoundError: There is none.
    """
    tried = [folder / name / "google_16k" / f for f in ("textured.obj", "nontextured.stl")]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no mesh of {name}: there is neither {tried[0]} nor {tried[1].name} beside it; "
        "--ycb-meshes takes the folder that holds one folder per object"
    )


def _vertices(path: Path) -> np.ndarray:
    """Load the corners (n, 3), m, of an OBJ or STL file."""
    if not path.is_file():
        raise ValueError(f"the mesh {path} does not exist; was the folder of meshes moved?")
    if path.suffix == ".obj":
        rows = [line.split()[1:4] for line in path.read_text().splitlines() if line[:2] == "v "]
        return np.array(rows, dtype=np.float64)
    triangles = np.fromfile(path, dtype=_STL_TRIANGLE, offset=84)
    return triangles["corners"].reshape(-1, 3).astype(np.float64)
