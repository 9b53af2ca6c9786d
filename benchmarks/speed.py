"""How fast it is: state only, recorded with cameras, and where a recorded step's time goes.

Usage: python -m benchmarks.speed [--presets fast default pretty] [--episodes 4] [--processes 2]
       python -m benchmarks.speed --memory 200        (peak memory over 200 episodes instead)

Prints tables and writes JSON to benchmarks/results/. Nothing is asserted: compare machines.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

import collect
from benchmarks import RESULTS
from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceEnv
from pp_env.config import RENDER_PRESETS
from recorder.rollout import run_episode
from recorder.status import StatusFile
from recorder.video import VideoEncoder


def state_only() -> dict[str, float]:
    """Steps per second of `env.step` and expert episodes per hour, in one process."""
    env, expert = PickPlaceEnv(terminate_on_success=False), PickPlaceExpert()
    env.reset(seed=0)
    hold = np.append(env._state.joint_pos, 0.04).astype(np.float32)
    step_seconds = _seconds(lambda: env.step(hold), 5000)
    episodes = iter(range(1000))
    episode_seconds = _seconds(
        lambda: run_episode(env, expert, [], 0, next(episodes), expert.num_steps), 50
    )
    env.close()
    return {"steps_per_s": 1 / step_seconds, "expert_episodes_per_h": 3600 / episode_seconds}


def breakdown(preset: str) -> dict[str, float]:
    """Milliseconds per recorded step by where they go, in one process, encoders beside it."""
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        args = collect.make_parser().parse_args(
            ["--output", f"{folder}/set", "--preset", preset, "--num-episodes", "1"]
        )
        config = collect.make_config(args)
        env, expert = collect.make_env(args, config), PickPlaceExpert()
        writer = collect.make_writer(args, config, collect.simulator_description(env))
        simulator = env.unwrapped._simulator
        for target, method, label in (
            (simulator, "step", "physics"),
            (simulator, "render", "rendering"),
            (writer, "add", "writer, waiting for encoders"),
            (writer, "end", "writer, commit"),
        ):
            setattr(target, method, _timed(getattr(target, method), spent, label))
        env.reset(seed=0)  # loads shaders and meshes
        spent.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        run_episode(env, expert, [writer], 0, 0, expert.num_steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        encoding = _encoding_seconds(writer.root / "videos", Path(folder))
        env.close()
    per_step = {name: 1e3 * value / expert.num_steps for name, value in spent.items()}
    whole = 1e3 * wall / expert.num_steps
    per_step["the rest"] = whole - sum(per_step.values())
    per_step["whole step, wall"] = whole
    per_step["whole step, CPU"] = 1e3 * cpu / expert.num_steps
    per_step["of which encoding, CPU"] = 1e3 * encoding / expert.num_steps
    return per_step


def recorded(preset: str, episodes: int, processes: int) -> dict[str, float]:
    """Episodes per hour of so many collections side by side, both cameras, start-up excluded."""
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            [sys.executable, "-m", "benchmarks.speed", "--worker", f"{folder}/{k}", preset,
             str(episodes), str(k)]
            for k in range(processes)
        ]  # fmt: skip
        running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
        outcomes = [json.loads(process.communicate()[0]) for process in running]
    rate = sum(o["episodes"] / o["seconds"] for o in outcomes)
    frames = sum(o["frames"] for o in outcomes)
    return {
        "episodes_per_h": 3600 * rate,
        "cpu_s_per_episode": sum(o["cpu"] for o in outcomes) / sum(o["episodes"] for o in outcomes),
        "mb_per_episode": np.mean([o["mb"] for o in outcomes]) / episodes,
        "peak_memory_mb": max(o["peak_memory_mb"] for o in outcomes),
        "images_per_cpu_s": 2 * frames / sum(o["cpu"] for o in outcomes),
    }


def worker(output: str, preset: str, episodes: str, seed: str) -> None:
    """One collection in a process of its own; prints what it took as JSON."""
    args = collect.make_parser().parse_args(
        ["--output", output, "--preset", preset, "--num-episodes", episodes, "--seed", seed]
    )
    config = collect.make_config(args)
    env, expert = collect.make_env(args, config), PickPlaceExpert()
    writer = collect.make_writer(args, config, collect.simulator_description(env))
    env.reset(seed=0)
    wall, cpu = time.perf_counter(), time.process_time()
    stop = collect.StopRequest()
    tally = collect.run_attempts(env, expert, [writer], writer, args, stop, StatusFile(None))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    writer.close()
    env.close()
    size = sum(f.stat().st_size for f in Path(output).rglob("file-*") if f.is_file())
    print(json.dumps({
        "episodes": tally.successes, "frames": writer.num_frames, "seconds": wall, "cpu": cpu,
        "mb": size / 1e6, "peak_memory_mb": _peak_memory_mb(),
    }))  # fmt: skip


def memory(episodes: int, preset: str) -> dict[str, list[float]]:
    """Memory of a recording process after 10, 20, 40, ... episodes, MB."""
    samples: dict[int, float] = {}

    class Sampler:
        """A sink that reads the process's memory."""

        count = 0

        def end(self, episode) -> None:
            """Samples now and then."""
            self.count += 1
            if self.count % 10 == 0:
                samples[self.count] = _memory_mb()
                print(f"  {self.count} episodes: {samples[self.count]:.0f} MB", flush=True)

        begin = add = lambda self, _: None
        abort = close = lambda self: None

    with tempfile.TemporaryDirectory() as folder:
        args = collect.make_parser().parse_args(
            ["--output", f"{folder}/set", "--preset", preset, "--num-episodes", str(episodes)]
        )
        config = collect.make_config(args)
        env, expert = collect.make_env(args, config), PickPlaceExpert()
        writer = collect.make_writer(args, config, collect.simulator_description(env))
        stop, file = collect.StopRequest(), StatusFile(None)
        collect.run_attempts(env, expert, [writer, Sampler()], writer, args, stop, file)
        writer.close()
        env.close()
    return {"episodes": list(samples), "mb": list(samples.values()), "peak_mb": [_peak_memory_mb()]}


def main() -> int:
    """Runs what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=sorted(RENDER_PRESETS),
                        default=["fast", "default", "pretty"])  # fmt: skip
    parser.add_argument("--episodes", type=int, default=4, help="per process; 1 for pretty")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--memory", type=int, metavar="N", help="only this, over N episodes")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(*args.worker)
        return 0
    RESULTS.mkdir(exist_ok=True)
    if args.memory:
        result = memory(args.memory, args.presets[0])
        (RESULTS / "memory.json").write_text(json.dumps(result, indent=2))
        print(f"memory after {result['episodes']} episodes: {np.round(result['mb'])} MB")
        return 0
    results: dict = {"machine": platform.platform(), "cores": os.cpu_count()}
    results["state_only"] = state_only()
    print("\n".join(f"{k:24} {v:12,.0f}" for k, v in results["state_only"].items()))
    print("\nwhere a recorded step's time goes, ms (two cameras, 512 x 512, one process)")
    results["breakdown"] = {p: breakdown(p) for p in args.presets}
    _print_table(results["breakdown"], "{:10.2f}")
    print(f"\nrecorded, {args.processes} processes side by side")
    results["recorded"] = {
        p: recorded(p, 1 if p == "pretty" else args.episodes, args.processes) for p in args.presets
    }
    _print_table(results["recorded"], "{:10.1f}")
    (RESULTS / "speed.json").write_text(json.dumps(results, indent=2))
    return 0


def _print_table(columns: dict[str, dict[str, float]], number: str) -> None:
    print(f"{'':30}" + "".join(f"{name:>10}" for name in columns))
    for row in next(iter(columns.values())):
        print(f"{row:30}" + "".join(number.format(column[row]) for column in columns.values()))


def _seconds(call: Callable[[], object], count: int) -> float:
    """Seconds per call, after some calls to warm up."""
    for _ in range(max(count // 20, 1)):
        call()
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def _timed(call: Callable, spent: dict[str, float], label: str) -> Callable:
    def timed(*args):
        begin = time.perf_counter()
        result = call(*args)
        spent[label] += time.perf_counter() - begin
        return result

    return timed


def _encoding_seconds(videos: Path, folder: Path) -> float:
    """CPU seconds that encoding all these videos again takes, decoding excluded."""
    import av

    total = 0.0
    for path in videos.rglob("file-*.mp4"):
        with av.open(str(path)) as container:
            images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        begin = time.process_time()
        encoder = VideoEncoder(folder / "again.mp4", "h264", 30)
        for image in images:
            encoder.add(image)
        encoder.finish(len(images))
        total += time.process_time() - begin
    return total


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak_memory_mb() -> float:
    # Not getrusage: its peak includes the parent's, from before exec.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
