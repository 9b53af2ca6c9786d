"""Run the bridge on a fake Isaac Sim and count the updates of its application.

Usage: python -m tests.pp_bridge.fake_isaac_bridge COUNT_FILE ASSETS_ROOT [options of the bridge]
"""

import sys
from pathlib import Path

import numpy as np


def counter(path: Path) -> np.ndarray:
    """Return the number of the application's updates, () int64, shared with its process."""
    return np.memmap(path, np.int64, "r+", shape=())


def main(count_file: str, assets_root: str, *options: str) -> int:
    """Run the bridge and return its exit status."""
    from pp_bridge.__main__ import (
        main as run_bridge,  # here, or the web's process would load pxr too
    )
    from pp_env.sim.isaac import machine
    from tests.fake_isaac import FakeIsaac, ProcessEnded

    count = counter(Path(count_file))

    class Counted(FakeIsaac):
        def update(self, simulate: bool = True) -> None:
            super().update(simulate)
            count[...] += 1

    machine.check = lambda: None
    with Counted("4.5.0", Path(assets_root)):
        try:
            return run_bridge(["--simulator", "isaacsim", *options])
        except ProcessEnded as ended:
            return ended.args[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
