"""Sinks that show a collection's pictures while they are recorded."""

import argparse
import os
import time

from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import (
    TOKEN_VARIABLE,
    WebProcess,
    WebSettings,
    require_library,
    require_ports,
    require_token,
)
from pp_env.config import PickPlaceConfig
from pp_recorder.rollout import Episode, Step

_SHORTEST = 0.01  # s; viewers get 31 pictures a second, so more copies would be for nobody


class FramePublisher:
    """Shows the pictures that were taken for the dataset, if somebody watches.

    Args:
        board: Where.
    """

    def __init__(self, board: SharedState) -> None:
        self._board = board
        self._shown = -_SHORTEST

    def begin(self, seed: int) -> None:
        """Nothing to do."""

    def add(self, step: Step) -> None:
        """Shows the observation's pictures, unless some were shown just before."""
        now = time.monotonic()
        if self._board.viewers and now - self._shown >= _SHORTEST:
            self._board.show(step.observation["pixels"])
            self._shown = now

    def end(self, episode: Episode) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class LiveView(FramePublisher):
    """The live view alone, for `collect.py --streaming`; `close` ends it.

    Args:
        args: The options of collect.py.
        config: The environment's.

    Attributes:
        address: Of the page.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, args: argparse.Namespace, config: PickPlaceConfig) -> None:
        board = SharedState([camera.name for camera in config.cameras], config.render.size)
        board.post({"state": "collecting"})
        super().__init__(board)
        host, port = args.streaming_host, args.streaming_port
        self._web = WebProcess(board, WebSettings(host, port, port, _token(), root=None))
        self.address = f"http://{host}:{self._web.port}"

    def add(self, step: Step) -> None:
        """Shows the observation's pictures, and that the collection is alive."""
        super().add(step)
        self._board.post({"state": "collecting"})

    def close(self) -> None:
        """Ends it."""
        self._web.close()


def require_live_view(args: argparse.Namespace) -> None:
    """Checks the options of a `LiveView`.

    Raises:
        ValueError: An option is out of range, or a token is missing.
        ImportError: The extra [bridge] is not installed.
    """
    require_library()
    require_ports(args.streaming_port)
    require_token(_token(), args.streaming_host)


def _token() -> str | None:
    return os.environ.get(TOKEN_VARIABLE) or None
