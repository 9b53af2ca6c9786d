"""The Panda's meshes from the gymnasium-robotics wheel; the package itself is not imported."""

import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["visual", "collision"]

_LEAST_TRIANGLES = 600  # of a part: the fingers, the smallest, stay whole
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def path(kind: Kind, part: str) -> Path:
    """The STL file of a part of the robot: "link0" to "link7", "hand" or "finger".

    Raises:
        ImportError: The package that ships it is not installed.
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
    """Vertices (n, 3) float32, m, and triangles (m, 3) int32, with equal corners merged."""
    triangles = np.fromfile(path(kind, part), dtype=_STL_TRIANGLE, offset=84)
    corners = triangles["corners"].reshape(-1, 3)
    vertices, faces = np.unique(corners, axis=0, return_inverse=True)
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def simplified(kind: Kind, part: str, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """Like `load`, with the share `detail` of the triangles, but never less than a few hundred."""
    import fast_simplification

    vertices, faces = load(kind, part)
    target = max(round(len(faces) * detail), _LEAST_TRIANGLES)
    if target < len(faces):
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=target)[:2]
    return vertices, faces
