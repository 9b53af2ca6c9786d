"""Compare what a picture costs here and in another checkout of the project, in alternating runs.

Usage: git worktree add /tmp/before v0.1.0
       python -m benchmarks.picture_cost --other /tmp/before [--rounds 100]

Prints, per preset and size, the processor time per picture in both (median, ms) and the median of
the ratios of neighbouring rounds, which a busy machine disturbs least.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import save

_CAMERAS = ("cam_high", "cam_wrist")
_CASES = [(preset, size) for size in (512, 128) for preset in ("fast", "default", "pretty")]
_HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785, 0.04], dtype=np.float32)


def serve(preset: str, size: int) -> None:
    """Answer every line of the input with the processor time per picture, ms, of one round."""
    from pp_env.config import PickPlaceConfig, RenderConfig
    from pp_env.env import PickPlaceEnv

    env = PickPlaceEnv(config=PickPlaceConfig(render=RenderConfig(resolution=size, preset=preset)))
    env.reset(seed=1)
    render = env._simulator.render  # under this name in every version
    for camera in _CAMERAS:
        render(camera)
    for step, _ in enumerate(sys.stdin):
        action = _HOME.copy()
        action[:7] += 0.2 * np.sin(0.1 * step + np.arange(7))
        env.step(action)
        begin = time.process_time()
        for camera in _CAMERAS:
            render(camera)
        print((time.process_time() - begin) / len(_CAMERAS) * 1e3, flush=True)


def measure(trees: Sequence[Path], preset: str, size: int, rounds: int) -> dict:
    """Return the result of one case, after alternating rounds in the checkouts."""
    command = [sys.executable, __file__, "--serve", preset, str(size)]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parent.parent}"},
        )
        for tree in trees
    ]
    times = np.empty((rounds, len(trees)))
    for k in range(rounds):
        for i, process in enumerate(processes):
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            times[k, i] = float(process.stdout.readline())
    for process in processes:
        process.communicate()
    other, here = np.median(times, axis=0)
    ratio = float(np.median(times[:, 1] / times[:, 0]))
    print(
        f"{preset} {size}: {other:.2f} ms there, {here:.2f} ms here, ratio {ratio:.3f}", flush=True
    )
    return {"preset": preset, "size": size, "other_ms": other, "here_ms": here, "ratio": ratio}


def main() -> int:
    """Measure all cases; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--serve", nargs=2, metavar=("PRESET", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        preset, size = options.serve
        serve(preset, int(size))
        return 0
    if options.other is None or not (options.other / "pp_env").is_dir():
        parser.error(f"--other must be a checkout with a folder pp_env, got {options.other}")
    trees = [options.other.resolve(), Path(__file__).parent.parent]
    results = [measure(trees, preset, size, options.rounds) for preset, size in _CASES]
    save("picture_cost", {"cases": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
