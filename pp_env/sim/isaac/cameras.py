"""The cameras of the Isaac Sim scene, rendered together."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pp_env.config import CameraConfig, PickPlaceConfig
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.app import IsaacSimError

_RENDERS_TO_WARM_UP = 200
_MAX_LAG = 8  # renders


class Cameras:
    """All cameras of the scene, which render together and are initialised once.

    They stay out of Isaac's scene registry, which would initialise them again at every reset; in
    4.5 each initialisation leaks an annotator.

    Args:
        app: The running `SimulationApp`.
        world: Its `World`.
        config: The scene.
        path: Function that gives the path of a camera's prim.
    """

    def __init__(
        self, app: Any, world: Any, config: PickPlaceConfig, path: Callable[[CameraConfig], str]
    ) -> None:
        sensors = isaac_app.load(app, "isaacsim.sensors.camera")
        self._world = world
        self._size = config.render.size
        self._cameras = {
            camera.name: sensors.Camera(
                prim_path=path(camera), name=camera.name, resolution=self._size
            )
            for camera in config.cameras
        }
        for camera in self._cameras.values():
            camera.initialize()

    def render(self, times: int) -> None:
        """Render all cameras so many times, without stepping physics."""
        for _ in range(times):
            self._world.render()

    def read(self) -> dict[str, np.ndarray]:
        """Return the last rendered image of each camera, by name, (H, W, 3) uint8.

        Raises:
            IsaacSimError: A camera has no image.
        """
        width, height = self._size
        found = {name: camera.get_rgba() for name, camera in self._cameras.items()}
        for name, pixels in found.items():
            if not self._is_image(pixels):
                raise IsaacSimError(
                    f"{name} should give a picture of {width} x {height} pixels, but gave "
                    f"{'nothing' if pixels is None else np.shape(pixels)}"
                )
        return {name: np.array(pixels[..., :3], dtype=np.uint8) for name, pixels in found.items()}

    def warm_up(self) -> None:
        """Render until every camera has an image: shaders compile and assets load meanwhile.

        Raises:
            IsaacSimError: A camera stays empty or black.
        """
        for _ in range(_RENDERS_TO_WARM_UP):
            self._world.render()
            found = [camera.get_rgba() for camera in self._cameras.values()]
            if all(self._is_image(p) and np.std(p[..., :3]) > 2.0 for p in found):
                return
        images = self.read()
        spread = {name: round(float(p.std()), 1) for name, p in images.items()}
        raise IsaacSimError(
            f"after {_RENDERS_TO_WARM_UP} frames a camera still sees one colour (standard "
            f"deviation {spread}); check the GPU's driver, or delete the settings of an earlier "
            "version by starting isaac-sim.sh once with --reset-user"
        )

    def measure_lag(self, name: str) -> int:
        """Return the number of renders until the camera shows something that has just moved.

        Raises:
            IsaacSimError: The camera never shows it.
        """
        seen = [self.read()[name].astype(float)]
        for _ in range(_MAX_LAG):
            self._world.render()
            seen.append(self.read()[name].astype(float))
        changed = np.abs(seen[-1] - seen[0]).max(axis=2) > 30.0
        if not changed.any():
            raise IsaacSimError(
                f"{name} does not show that object and marker have moved, after {_MAX_LAG} "
                "frames; the renderer does not follow the physics"
            )
        full_change = np.abs(seen[0] - seen[-1])[changed].mean()
        for k in range(1, _MAX_LAG):
            if np.abs(seen[k] - seen[-1])[changed].mean() < 0.25 * full_change:
                return k
        return _MAX_LAG

    def _is_image(self, pixels: Any) -> bool:
        # Before the first frame, 4.5 gives an empty array and 5.x gives None.
        return pixels is not None and np.ndim(pixels) == 3 and pixels.shape[:2] == self._size[::-1]
