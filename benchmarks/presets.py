"""Measure the images per second of each preset, without recording them.

Usage: python -m benchmarks.presets [--presets fast filament] [--resolution 256] [--processes 1]

The arm moves; the two cameras of every step are rendered one after the other, and only that is
timed. Parallel processes share the GPU, or the cores where OpenGL and Vulkan are software. Prints a
table and writes benchmarks/results/presets.json.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np

from benchmarks import peak_memory_mb, report, save
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import HOME_JOINT_POS, RENDER_PRESETS, RenderConfig
from pp_env.panda import FINGER_OPEN

_WARM_UP = 3  # steps that do not count: drivers compile what they draw with


def render(preset: str, resolution: int, steps: int) -> dict[str, float]:
    """Return what the images of `steps` steps take in this process."""
    config = PickPlaceConfig(render=RenderConfig(resolution, preset))
    env = PickPlaceEnv(config=config)
    env.reset(seed=0)
    wall = cpu = 0.0
    for step in range(-_WARM_UP, steps):
        arm = np.array(HOME_JOINT_POS) + 0.2 * np.sin(0.1 * step + np.arange(7))
        env.step(np.append(arm, FINGER_OPEN).astype(np.float32))
        begin, begin_cpu = time.perf_counter(), time.process_time()
        env.render_cameras()
        if step >= 0:
            wall += time.perf_counter() - begin
            cpu += time.process_time() - begin_cpu
    env.close()
    images = steps * len(config.cameras)
    return {
        "images_per_s": images / wall, "cpu_ms_per_image": 1e3 * cpu / images,
        "peak_memory_mb": peak_memory_mb(),
    }  # fmt: skip


def render_parallel(preset: str, resolution: int, steps: int, processes: int) -> dict[str, float]:
    """Return the combined figures of parallel processes.

    Raises:
        RuntimeError: A process failed.
    """
    words = ["--worker", preset, "--resolution", str(resolution), "--steps", str(steps)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.presets", *words], stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    outputs = [process.communicate()[0] for process in running]
    failed = sum(process.returncode != 0 for process in running)
    if failed:
        raise RuntimeError(f"{failed} of {processes} processes failed; see above")
    outcomes = [json.loads(output) for output in outputs]
    return {
        "images_per_s": sum(each["images_per_s"] for each in outcomes),
        "cpu_ms_per_image": sum(each["cpu_ms_per_image"] for each in outcomes) / processes,
        "peak_memory_mb": max(each["peak_memory_mb"] for each in outcomes),
    }


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=sorted(RENDER_PRESETS),
                        default=list(RENDER_PRESETS), help="image quality")  # fmt: skip
    parser.add_argument("--resolution", type=int, default=256, help="edge of an image, pixels")
    parser.add_argument("--steps", type=int, default=50, help="in each process")
    parser.add_argument("--processes", type=int, default=1, help="side by side")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(render(args.worker, args.resolution, args.steps)))
        return 0
    columns = {}
    for preset in args.presets:
        print(f"{preset}: {args.processes} processes, {args.steps} steps each", flush=True)
        columns[preset] = render_parallel(preset, args.resolution, args.steps, args.processes)
    results = {"processes": args.processes, "resolution": args.resolution, "columns": columns}
    save("presets", results)
    report.show("presets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
