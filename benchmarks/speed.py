"""Measure the speed on all cores: expert episodes, state only and recorded with each preset.

Usage: python -m benchmarks.speed [--presets fast default pretty] [--episodes 4] [--processes 2]

Parallel processes, each with its own simulator, record two cameras of 512 x 512 and encode them.
Start-up does not count. Prints a table and writes benchmarks/results/speed.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import peak_memory_mb, report, save
from benchmarks.prepared import prepared
from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import RENDER_PRESETS
from pp_env.processors import usable_processors
from pp_recorder.rollout import episode_seed, run_episode

STATE_ONLY = "state only"
_STATE_EPISODES = 200


def run_worker(what: str, episodes: int, seed: int) -> dict[str, float]:
    """Return the cost of some episodes in this process, state only or recorded with a preset."""
    return state_only(episodes, seed) if what == STATE_ONLY else recorded(what, episodes, seed)


def state_only(episodes: int, seed: int) -> dict[str, float]:
    """Return the cost of expert episodes without images."""
    env, expert = PickPlaceEnv(terminate_on_success=False), PickPlaceExpert()
    run_episode(env, expert, [], seed, 0, expert.num_steps)
    wall, cpu = time.perf_counter(), time.process_time()
    successes = sum(
        run_episode(env, expert, [], episode_seed(seed, k), k, expert.num_steps).success
        for k in range(episodes)
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    env.close()
    return {
        "attempts": episodes, "successes": successes, "frames": episodes * expert.num_steps,
        "seconds": wall, "cpu": cpu, "mb": 0.0, "peak_memory_mb": peak_memory_mb(),
    }  # fmt: skip


def recorded(preset: str, episodes: int, seed: int) -> dict[str, float]:
    """Return the cost of episodes that are rendered, encoded and committed."""
    with tempfile.TemporaryDirectory() as folder:
        with prepared(folder, preset, episodes, seed) as ready:
            session = ready.session
            wall, cpu = time.perf_counter(), time.process_time()
            while session.step():
                pass
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(f.stat().st_size for f in Path(folder).rglob("file-*") if f.is_file())
    return {
        "attempts": session.stats.attempts, "successes": session.stats.successes,
        "frames": session.writer.num_frames,
        "seconds": wall, "cpu": cpu, "mb": size / 1e6,
        "peak_memory_mb": peak_memory_mb(),
    }  # fmt: skip


def measure_parallel(what: str, episodes: int, processes: int) -> dict[str, float]:
    """Return the combined figures of parallel processes.

    Raises:
        RuntimeError: A process failed.
    """
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed", "--worker", what, str(episodes), str(k)],
            stdout=subprocess.PIPE, text=True,
        )
        for k in range(processes)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in running]
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {processes} processes failed; see above")
    outcomes = [json.loads(output) for output in outputs]
    total = {key: sum(o[key] for o in outcomes) for key in outcomes[0]}
    cpu, successes = total["cpu"], total["successes"]
    figures = {
        "good_episodes_per_h": 3600 * sum(o["successes"] / o["seconds"] for o in outcomes),
        "success": successes / total["attempts"],
        "attempts": total["attempts"],
        "cpu_s_per_episode": cpu / successes,
        "peak_memory_mb": max(o["peak_memory_mb"] for o in outcomes),
        "sim_s_per_cpu_s": total["frames"] * PickPlaceConfig().timing.control_period / cpu,
    }
    if what == STATE_ONLY:
        return figures
    return {
        **figures,
        "mb_per_episode": total["mb"] / successes,
        "images_per_s": 2 * sum(o["frames"] / o["seconds"] for o in outcomes),
        "images_per_cpu_s": 2 * total["frames"] / cpu,
    }


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=sorted(RENDER_PRESETS),
                        default=["fast", "default", "pretty"],
                        help="image quality")  # fmt: skip
    parser.add_argument("--episodes", type=int, default=4, help="per process; 1 for pretty")
    parser.add_argument("--processes", type=int, default=usable_processors(),
                        help="default: one per core")  # fmt: skip
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        what, episodes, seed = args.worker
        print(json.dumps(run_worker(what, int(episodes), int(seed))))
        return 0
    episodes = {STATE_ONLY: _STATE_EPISODES, **dict.fromkeys(args.presets, args.episodes)}
    if "pretty" in episodes:
        episodes["pretty"] = 1
    columns = {}
    for what, count in episodes.items():
        print(f"{what}: {args.processes} processes, {count} episodes each", flush=True)
        columns[what] = measure_parallel(what, count, args.processes)
    save("speed", {"processes": args.processes, "columns": columns})
    report.show("speed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
