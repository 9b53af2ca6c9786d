"""Sinks that publish a collection's images while they are recorded."""

import time

from pp_bridge.settings import (
    WebSettings,
    read_token,
    require_library,
    validate_ports,
    validate_token,
)
from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import WebProcess
from pp_env.config import PickPlaceConfig
from pp_recorder.rollout import EpisodeSink, Step

_MIN_INTERVAL = 0.01  # s; viewers get 31 images per second, so more copies would be useless


class FramePublisher(EpisodeSink):
    """A sink that publishes the recorded images to a `SharedState` while there are viewers.

    Args:
        shared_state: Receives the images.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state
        self._last_publish_time = -_MIN_INTERVAL

    def add(self, step: Step) -> None:
        """Publish the observation's images, unless others were published just before."""
        now = time.monotonic()
        if self._shared_state.viewers and now - self._last_publish_time >= _MIN_INTERVAL:
            self._shared_state.publish_images(step.observation["pixels"])
            self._last_publish_time = now


class LiveView(FramePublisher):
    """A sink with a page that shows the cameras, for `collect.py --streaming`.

    Args:
        host: Address of the page.
        port: TCP port of the page, and the first UDP port of the images.
        config: Configuration of the environment.

    Attributes:
        address: URL of the page.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, host: str, port: int, config: PickPlaceConfig) -> None:
        shared_state = SharedState([camera.name for camera in config.cameras], config.render.size)
        shared_state.publish_status({"state": "collecting"})
        super().__init__(shared_state)
        self._web = WebProcess(shared_state, WebSettings(host, port, port, read_token(), root=None))
        self.address = f"http://{host}:{self._web.port}"

    def add(self, step: Step) -> None:
        """Publish the observation's images, and a status that tells that the collection works."""
        super().add(step)
        self._shared_state.publish_status({"state": "collecting"})

    def close(self) -> None:
        """End the web's process."""
        self._web.close()


def require_live_view(host: str, port: int) -> None:
    """Check the options of a `LiveView`.

    Raises:
        ValueError: An option is out of range, or a token is missing.
        ImportError: The extra [bridge] is not installed.
    """
    require_library()
    validate_ports(port)
    validate_token(read_token(), host)
