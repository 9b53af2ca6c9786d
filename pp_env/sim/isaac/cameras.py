"""The cameras of the Isaac Sim scene, rendered together."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pp_env.config import CameraConfig, PickPlaceConfig
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.app import IsaacSimError

_RENDERS_TO_WARM_UP = 200
_TIME_TO_WARM_UP = 180.0  # s; both must have passed: shaders compile for minutes the first time
_MAX_LAG = 8  # renders
_OLD_SHARE = 0.05  # of the old picture that may still be seen, as the renderer's history fades


class Cameras:
    """All cameras of the scene, which render together.

    They use Replicator's render products directly. Isaac's own `Camera` copies the picture at every
    rendered frame, leaks an annotator at each initialisation (4.5), and leaves its render product
    behind.

    Args:
        app: The running `SimulationApp`.
        world: Its `World`.
        config: The scene.
        path: Function that gives the path of a camera's prim.
    """

    def __init__(
        self, app: Any, world: Any, config: PickPlaceConfig, path: Callable[[CameraConfig], str]
    ) -> None:
        replicator = isaac_app.load(app, "omni.replicator.core")
        self._world = world
        self._size = config.render.size
        self._products = [
            replicator.create.render_product(path(camera), self._size) for camera in config.cameras
        ]
        self._colors: dict[str, Any] = {}
        for camera, product in zip(config.cameras, self._products, strict=True):
            annotator = replicator.AnnotatorRegistry.get_annotator("rgb")
            annotator.attach([product.path])
            self._colors[camera.name] = annotator

    def close(self) -> None:
        """Stop rendering."""
        for annotator in self._colors.values():
            annotator.detach()
        for product in self._products:
            product.destroy()
        self._colors, self._products = {}, []

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
        found = {name: annotator.get_data() for name, annotator in self._colors.items()}
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
        begin, renders = time.monotonic(), 0
        while renders < _RENDERS_TO_WARM_UP or time.monotonic() - begin < _TIME_TO_WARM_UP:
            self._world.render()
            renders += 1
            found = [annotator.get_data() for annotator in self._colors.values()]
            if all(self._is_image(p) and np.std(p[..., :3]) > 2.0 for p in found):
                return
        spread = {name: round(float(p.std()), 1) for name, p in self.read().items()}
        raise IsaacSimError(
            f"after {renders} frames in {time.monotonic() - begin:.0f} s a camera still sees one "
            f"colour (standard deviation {spread}); check the GPU's driver, or delete the settings "
            "of an earlier version by starting isaac-sim.sh once with --reset-user"
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
            if np.abs(seen[k] - seen[-1])[changed].mean() < _OLD_SHARE * full_change:
                return k
        return _MAX_LAG

    def _is_image(self, pixels: Any) -> bool:
        # Before the first frame it is an empty array.
        return pixels is not None and np.ndim(pixels) == 3 and pixels.shape[:2] == self._size[::-1]
