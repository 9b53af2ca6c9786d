"""Measure many worlds on one GPU: environment steps, images, and where a step's time goes.

    python -m benchmarks.gpu steps --num-envs 4096 16384
    python -m benchmarks.gpu images
    python -m benchmarks.gpu profile
    python -m benchmarks.gpu kernels --num-envs 16384
    python -m benchmarks.gpu expert --num-envs 10000
    python -m benchmarks.gpu attempts --num-envs 256

A whole collection is measured by `pp-collect` itself, see docs/gpu.md; `attempts` says where the
time of one of its processes goes. Needs the extra [gpu]; without an
NVIDIA GPU, `WARP_GPU=cpu` with few environments shows that it works.
"""

import argparse
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import pp_env
from experts.pick_place import PickPlaceExpert
from pp_collect.factory import make_config
from pp_collect.options import CollectOptions
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig, RenderConfig, choose_cameras
from pp_env.panda import FINGER_OPEN
from pp_env.processors import usable_processors
from pp_env.sim import default_timing

_RESULTS = Path(__file__).parent / "results" / "gpu.json"
_SEED = 0


def main() -> None:
    """Run one measurement and store it."""
    parser = argparse.ArgumentParser(description="Measure many worlds on one GPU.")
    parser.add_argument("what", choices=tuple(_MEASUREMENTS))
    parser.add_argument("--num-envs", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--num-steps", type=int, default=200, help="measured, after 20 others")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--preset", default="default")
    arguments = parser.parse_args()
    measure = _MEASUREMENTS[arguments.what]
    rows = [measure(count, arguments) for count in arguments.num_envs]
    for row in rows:
        print(json.dumps(row))
    stored = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps({**stored, arguments.what: rows}, indent=1))


def _steps(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure environment steps per second, rewards and autoreset included."""
    envs, seconds = _make(num_envs, reward_type="dense")
    actions = _actions(num_envs, arguments.num_steps)
    row = {"num_envs": num_envs, **seconds}
    row["numpy_steps_per_s"] = _rate(num_envs, actions, lambda action: envs.step(action))
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return row
    view = envs.to_torch()
    on_device = torch.as_tensor(actions, device=view.device)
    row["torch_steps_per_s"] = _rate(num_envs, on_device, view.step, _wait(view))
    row["device"], row["no_room_for"] = envs.worlds.device, envs.worlds.overflows()
    return row


def _images(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure steps that also render two cameras, on the device."""
    config = PickPlaceConfig(
        timing=default_timing("warp"),
        render=RenderConfig(resolution=arguments.resolution, preset=arguments.preset),
        cameras=choose_cameras(["cam_front", "cam_wrist"]),
    )
    envs, seconds = _make(num_envs, obs_type="pixels", config=config)
    import torch  # pyright: ignore[reportMissingImports]

    view = envs.to_torch()
    actions = torch.as_tensor(_actions(num_envs, arguments.num_steps), device=view.device)
    rate = _rate(num_envs, actions, view.step, _wait(view))
    return {
        "num_envs": num_envs, "resolution": arguments.resolution, "preset": arguments.preset,
        "images_per_s": 2 * rate, **seconds,
    }  # fmt: skip


def _profile(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts of a step, each launched alone many times."""
    envs, _ = _make(num_envs, reward_type="dense")
    for action in _actions(num_envs, 20):
        envs.step(action)
    worlds = envs.worlds
    parts = {
        "whole step": envs.launch_step,
        "physics step": worlds.capture(worlds.step_physics),
        "rules before": worlds.capture(worlds.command_servos),
        "rules after": worlds.capture(worlds.observe),
        "begin": worlds.capture(worlds.begin),
    }
    wait, repeats = worlds.wait, arguments.num_steps
    milliseconds = {}
    for name, launch in parts.items():
        wait()
        begin = time.perf_counter()
        for _ in range(repeats):
            launch()
        wait()
        milliseconds[name] = round(1e3 * (time.perf_counter() - begin) / repeats, 4)
    return {"num_envs": num_envs, "substeps": worlds.config.timing.substeps, "ms": milliseconds}


def _kernels(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the device's time in each kernel of a step, ms."""
    envs, _ = _make(num_envs, reward_type="dense")
    import torch  # pyright: ignore[reportMissingImports]
    from torch.profiler import ProfilerActivity, profile  # pyright: ignore[reportMissingImports]

    view = envs.to_torch()
    if view.device.type != "cuda":
        raise SystemExit("error: kernels are measured on an NVIDIA GPU; profile works elsewhere")
    actions = torch.as_tensor(_actions(num_envs, arguments.num_steps), device=view.device)
    _rate(num_envs, actions, view.step, _wait(view))
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for action in actions[-20:]:
            view.step(action)
        _wait(view)()
    found: Counter[str] = Counter()
    for event in profiler.events() or ():
        found[event.name.split("__locals__")[0]] += event.device_time_total / 1e3 / 20
    ms = {name: round(value, 3) for name, value in found.most_common(20)}
    return {"num_envs": num_envs, "all_ms": round(found.total(), 2), "ms": ms}


def _expert(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Count the successes of the waypoint expert, one seed per environment, at full noise."""
    envs, _ = _make(
        num_envs, terminate_on_success=False, autoreset_mode="Disabled", num_starts=1, config=None
    )
    observation, infos = envs.reset(seed=_SEED)
    chunks = np.array_split(np.arange(num_envs), usable_processors())
    names = [name for name in infos if not name.startswith("_")]
    jobs = [(observation[c], {name: infos[name][c] for name in names}, c) for c in chunks]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        actions = np.concatenate(list(pool.map(_plan, jobs)), axis=1)
    begin = time.perf_counter()
    for action in actions:
        envs.step(action)
    seconds = time.perf_counter() - begin
    envs.worlds.require_no_overflow()
    success = envs.worlds.seen.unmet.numpy() == 0
    return {
        "num_envs": num_envs, "success": int(success.sum()), "seconds": round(seconds, 1),
        "failed_seeds": (np.flatnonzero(~success) + _SEED).tolist()[:20],
        "median_mm": round(1e3 * float(np.median(envs.worlds.seen.distance.numpy())), 2),
    }  # fmt: skip


def _plan(job: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the expert's actions (steps, n, 8) of some environments."""
    observations, infos, seeds = job
    plans = []
    for k, seed in enumerate(seeds.tolist()):
        expert = PickPlaceExpert()
        info = {name: column[k] for name, column in infos.items()}
        expert.reset(observations[k], info, np.random.default_rng([seed, 1]))
        plans.append([expert.act(None) for _ in range(expert.num_steps)])
    return np.array(plans).swapaxes(0, 1)


def _attempts(num_envs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the second of two batches of attempts: states, images, and waiting for encoders."""
    from pp_collect.batched import BatchWorker  # needs the extra [gpu]

    options = CollectOptions(
        output=Path("unused"),
        num_episodes=num_envs,
        simulator="warp",
        resolution=arguments.resolution,
        preset=arguments.preset,
        cameras=("cam_front", "cam_wrist"),
    )
    seconds: dict[str, float] = {"states": 0.0, "images": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            begin = time.perf_counter()
            result = function(*values)
            seconds[name] += time.perf_counter() - begin
            return result

        return call

    encoders = usable_processors()
    worker: Any = BatchWorker(options, make_config(options), num_envs, encoders)
    worker._lockstep.run = timed("states", worker._lockstep.run)
    worker._renderer.render = timed("images", worker._renderer.render)
    with closing(worker):
        worker.run(range(num_envs))
        seconds |= dict.fromkeys(seconds, 0.0)
        begin = time.perf_counter()
        results = worker.run(range(num_envs, 2 * num_envs))
        seconds["all"] = time.perf_counter() - begin
    kept = sum(r.payload is not None for r in results)
    images = sum(2 * len(r.payload.episode.columns["action"]) for r in results if r.payload)
    return {
        "num_envs": num_envs, "encoders": encoders, "resolution": arguments.resolution,
        "preset": arguments.preset, "kept": kept,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "images_per_s_to_host": round(images / seconds["images"]),
        "good_episodes_per_hour": round(3600 * kept / seconds["all"]),
    }  # fmt: skip


def _make(num_envs: int, **arguments: Any) -> tuple[Any, dict[str, float]]:
    """Return environments after a reset, and how long it took to make and to start them, s."""
    begin = time.perf_counter()
    envs: Any = gym.make_vec(
        pp_env.ENV_ID, num_envs=num_envs, simulator="warp", **arguments
    ).unwrapped
    made = time.perf_counter()
    envs.reset(seed=_SEED)
    ready = time.perf_counter()
    return envs, {"make_s": round(made - begin, 1), "first_reset_s": round(ready - made, 1)}


def _actions(num_envs: int, num_steps: int) -> np.ndarray:
    """Return random targets around HOME, (20 + num_steps, num_envs, 8) float32."""
    rng = np.random.default_rng(_SEED)
    home = np.append(HOME_JOINT_POS, FINGER_OPEN / 2)
    wave = rng.uniform(-0.3, 0.3, size=(20 + num_steps, 1, 8)) * [*[1.0] * 7, 0.06]
    return np.broadcast_to(home + wave, (20 + num_steps, num_envs, 8)).astype(np.float32)


def _rate(
    num_envs: int, actions: Any, step: Callable[[Any], Any], wait: Callable[[], None] = lambda: None
) -> int:
    """Return environment steps per second, after 20 that do not count."""
    for action in actions[:20]:
        step(action)
    wait()
    begin = time.perf_counter()
    for action in actions[20:]:
        step(action)
    wait()
    return round(num_envs * (len(actions) - 20) / (time.perf_counter() - begin))


def _wait(view: Any) -> Callable[[], None]:
    """Return a function that waits for the device."""
    import torch  # pyright: ignore[reportMissingImports]

    return torch.cuda.synchronize if view.device.type == "cuda" else lambda: None


_MEASUREMENTS = {
    "steps": _steps,
    "images": _images,
    "profile": _profile,
    "kernels": _kernels,
    "expert": _expert,
    "attempts": _attempts,
}

if __name__ == "__main__":
    main()
