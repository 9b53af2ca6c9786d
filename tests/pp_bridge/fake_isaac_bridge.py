"""The bridge where Isaac Sim seems to be installed, with its application's updates counted.

Usage: python -m tests.pp_bridge.fake_isaac_bridge COUNT_FILE ASSETS_ROOT [options of the bridge]
"""

import sys
from pathlib import Path

import numpy as np


def counter(path: Path) -> np.ndarray:
    """How often the application was updated, () int64, as its process counts it."""
    return np.memmap(path, np.int64, "r+", shape=())


def main(count_file: str, assets_root: str, *options: str) -> int:
    """Runs the bridge; returns its exit status."""
    from pp_bridge.__main__ import (
        main as run_bridge,  # here, or the web's process would load pxr too
    )
    from pp_env.sim.isaac import app as isaac_app
    from tests.fake_isaac import ProcessEnded, StandIn

    count = counter(Path(count_file))

    class Counted(StandIn):
        def update(self, simulate: bool = True) -> None:
            super().update(simulate)
            count[...] += 1

    isaac_app._NVIDIA_DRIVER = (Path(assets_root),)
    with Counted("4.5.0", Path(assets_root)):
        try:
            return run_bridge(["--simulator", "isaacsim", *options])
        except ProcessEnded as ended:
            return ended.args[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
