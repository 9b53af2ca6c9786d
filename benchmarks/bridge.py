"""What watching costs a collection, and how old an image is when the browser shows it.

Usage: python -m benchmarks.bridge load      # 50 pollers and 4 viewers, on and off in turns
       python -m benchmarks.bridge latency   # needs playwright and chromium

`load` needs the extra [bridge] and httpx. With cores enough, the simulator's process, the web's
process, and pollers and viewers have cores of their own, as they have where the load comes from
other machines; what the load got is reported beside what it cost.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

import benchmarks
from pp_bridge.options import BridgeOptions
from pp_collect.factory import make_config, make_env
from pp_recorder.command_line import parse
from tests.pp_bridge.server import BridgeServer

POLLERS, VIEWERS, CAMERAS = 50, 4, 2
_ENOUGH_CORES = 8
_CONTEXT = multiprocessing.get_context("spawn")
_SETTLE = 1.0  # s after the load has come or gone
_PATIENCE = 30.0  # s for it to come or go
_RENDERS = 100


class Cores(NamedTuple):
    """Which processors are whose; the same ones for all where there are too few."""

    simulator: list[int]
    web: list[int]
    load: list[int]

    @property
    def apart(self) -> bool:
        """Whether each has its own."""
        return self.simulator != self.load


class Turn(NamedTuple):
    """What was collected in a while.

    Attributes:
        seconds: Wall time.
        frames: Collected.
        simulator_cpu: CPU time of the simulator's process, s.
        web_cpu: CPU time of the web's process, s.
    """

    seconds: float
    frames: int
    simulator_cpu: float
    web_cpu: float

    def __sub__(self, before: "Turn") -> "Turn":
        return Turn(*(b - a for a, b in zip(before, self, strict=True)))

    @property
    def ms_per_frame(self) -> float:
        """Wall time."""
        return 1e3 * self.seconds / self.frames

    @property
    def cpu_ms_per_frame(self) -> float:
        """CPU time of the simulator's process."""
        return 1e3 * self.simulator_cpu / self.frames


def main(argv: list[str] | None = None) -> int:
    """Runs one of the two; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "latency"))
    parser.add_argument("--seconds", type=float, default=4.5, help="of each turn")
    parser.add_argument("--pairs", type=int, default=10, help="of turns without and with the load")
    parser.add_argument("--within", type=float, default=140.0, help="s; fewer pairs if need be")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--preset", default="fast")
    args = parser.parse_args(argv)
    if args.what == "load":
        results = measure_load(args)
        print(table(results))
    else:
        from benchmarks.bridge_latency import measure_latency  # or `load` would need a browser

        results = measure_latency(args)
        print(*(f"{name}: {ages}" for name, ages in results.items()), sep="\n")
    benchmarks.save(f"bridge_{args.what}", results)
    return 0


def measure_load(args: argparse.Namespace) -> dict[str, Any]:
    """How fast the collection is, and what it costs the simulator's process, with and without."""
    until = time.monotonic() + args.within
    cores = share_out(os.sched_getaffinity(0))
    options = ("--resolution", str(args.resolution), "--preset", args.preset)
    os.sched_setaffinity(0, cores.simulator)  # children inherit it
    with _CONTEXT.Pool(1) as pool:
        rendering_ms = pool.apply(_rendering_ms, (options,))
    with tempfile.TemporaryDirectory() as root, BridgeServer(Path(root), *options) as server:
        _pin(server.web_process, cores.web)
        os.sched_setaffinity(0, cores.load)
        server.start("load", num_episodes=10**6, steps_per_segment=30)
        with closing(Load(server, niceness=0 if cores.apart else 10)) as load:
            pairs, served = _take_turns(server, load, args, until)
        server.client.post("/collect/stop")
    os.sched_setaffinity(0, {*cores.simulator, *cores.web, *cores.load})
    return {
        "cores": cores._asdict(),
        "cores_apart": cores.apart,
        "rendering_ms": rendering_ms,
        "cost": {
            "frames_per_second": spread(1 - a.ms_per_frame / b.ms_per_frame for a, b in pairs),
            "rendering_aside": spread(
                1 - (a.ms_per_frame - rendering_ms) / (b.ms_per_frame - rendering_ms)
                for a, b in pairs
            ),
            "simulator_cpu": spread(b.cpu_ms_per_frame / a.cpu_ms_per_frame - 1 for a, b in pairs),
        },
        "without": _summary([a for a, _ in pairs], rendering_ms),
        "with": _summary([b for _, b in pairs], rendering_ms),
        "answers_per_second": statistics.median(answers for answers, _ in served),
        "images_per_second": statistics.median(images for _, images in served),
        "pairs": [[a._asdict(), b._asdict()] for a, b in pairs],
    }


def share_out(available: Iterable[int]) -> Cores:
    """A quarter to the simulator, a quarter to the web, the rest to the load."""

    def core(cpu: int) -> tuple[int, ...]:
        """Where it is: two processors may be one core, which must not be shared."""
        folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        with suppress(OSError):
            return *(int((folder / name).read_text()) for name in _TOPOLOGY), cpu
        return (cpu,)

    cpus = sorted(available, key=core)
    if len(cpus) < _ENOUGH_CORES:
        return Cores(cpus, cpus, cpus)
    quarter = len(cpus) // 8 * 2  # even, so that it is whole cores
    return Cores(cpus[:quarter], cpus[quarter : 2 * quarter], cpus[2 * quarter :])


_TOPOLOGY = ("physical_package_id", "core_id")


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median, and the second lowest and highest.

    Of ten, those two have the true median between them with a probability of 98 %.
    """
    ordered = sorted(values)
    trim = 1 if len(ordered) > 3 else 0
    ends = {"low": ordered[trim], "high": ordered[-1 - trim]}
    return {"median": statistics.median(ordered), **ends}


def table(results: dict[str, Any]) -> str:
    """The results in a form that can be read."""
    without, with_, cost = results["without"], results["with"], results["cost"]
    pairs = len(results["pairs"])

    def row(name: str, key: str, change: str) -> str:
        found = "{median:6.1%} ({low:.1%} to {high:.1%})".format(**cost[change])
        return f"{name:34}{without[key]:>9.2f}{with_[key]:>9.2f}   {found}"

    aside = results["rendering_ms"]
    asked = POLLERS, VIEWERS * CAMERAS * min(31.0, with_["frames_per_second"])
    lines = [
        f"{POLLERS} pollers and {VIEWERS} viewers; pairs of turns: {pairs}",
        f"{'':34}{'without':>9}{'with':>9}   cost: median (second lowest to second highest)",
        row("frames per second", "frames_per_second", "frames_per_second"),
        row(f"ms per frame, less {aside:.2f} of rendering", "ms_aside", "rendering_aside"),
        row("ms of CPU, simulator's process", "cpu_ms", "simulator_cpu"),
        f"{'cores used by the web':34}{without['web_cores']:>9.2f}{with_['web_cores']:>9.2f}",
        f"served: {results['answers_per_second']:.0f} answers/s of {asked[0]}, "
        f"{results['images_per_second']:.0f} images/s of {asked[1]:.0f}",
    ]
    cores = results["cores"]
    if results["cores_apart"]:
        lines.append("cores: " + ", ".join(f"{who} {cpus}" for who, cpus in cores.items()))
    else:
        lines.append(
            f"Only {len(cores['load'])} cores, which simulator, web, pollers and viewers share: "
            "frames per second tell how full the machine is, and not what watching costs; "
            "the CPU of the simulator's process does."
        )
    return "\n".join(lines)


def _take_turns(
    server: BridgeServer, load: "Load", args: argparse.Namespace, until: float
) -> tuple[list[tuple[Turn, Turn]], list[tuple[float, float]]]:
    """Pairs without and with the load, and answers and images per second of each."""
    pairs, served, longest = [], [], 0.0
    while len(pairs) < args.pairs and (not pairs or time.monotonic() + longest < until):
        began, turns = time.monotonic(), {}
        for wanted in (False, True) if len(pairs) % 2 == 0 else (True, False):  # against drift
            load.set(wanted)
            before, got = _look(server), load.got()
            time.sleep(args.seconds)
            turns[wanted] = turn = _look(server) - before
            if turn.frames <= 0:
                raise RuntimeError(f"no frame in {args.seconds} s: {server.status()}")
            if wanted:
                now = load.got()
                served.append(tuple((b - a) / turn.seconds for a, b in zip(got, now, strict=True)))
        pairs.append((turns[False], turns[True]))
        longest = max(longest, time.monotonic() - began)
    return pairs, served


def _look(server: BridgeServer) -> Turn:
    """What was collected so far."""
    status = server.status()
    frames = status["attempts"] * status["frames_per_episode"] + status["frame"]
    cpu = [_cpu_seconds(pid) for pid in (server.process.pid, server.web_process)]
    return Turn(time.monotonic(), frames, *cpu)


def _summary(turns: list[Turn], rendering_ms: float) -> dict[str, float]:
    """Medians."""

    def median(of: Callable[[Turn], float]) -> float:
        return statistics.median(map(of, turns))

    return {
        "frames_per_second": median(lambda turn: turn.frames / turn.seconds),
        "ms_aside": median(lambda turn: turn.ms_per_frame - rendering_ms),
        "cpu_ms": median(lambda turn: turn.cpu_ms_per_frame),
        "web_cores": median(lambda turn: turn.web_cpu / turn.seconds),
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pin(pid: int, cpus: list[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def _rendering_ms(options: tuple[str, ...]) -> float:
    """What the images of a frame take."""
    scene = parse(BridgeOptions, options, prog="pp-bridge", description="", example="")
    with closing(make_env(scene, make_config(scene), cameras=True)) as env:
        env.reset(seed=0)
        env.action_space.seed(0)
        unwrapped: Any = env.unwrapped
        took = []
        for _ in range(_RENDERS):
            env.step(env.action_space.sample())
            began = time.perf_counter()
            unwrapped.render_cameras()
            took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took)


class Load:
    """Pollers and viewers in processes of their own, which come and go.

    Args:
        server: Whom they ask.
        niceness: Theirs.
    """

    def __init__(self, server: BridgeServer, niceness: int) -> None:
        self._server = server
        self._wanted = _CONTEXT.Value("b", 0)
        self._got = [_CONTEXT.Value("Q", 0) for _ in range(1 + VIEWERS)]
        work = [_poll_all, *[_view] * VIEWERS]
        self._processes = [
            _CONTEXT.Process(
                target=_attend, args=(do, server.address, self._wanted, got, niceness), daemon=True
            )
            for do, got in zip(work, self._got, strict=True)
        ]
        for process in self._processes:
            process.start()

    def set(self, wanted: bool) -> None:
        """Has them come, until all are served, or go, until nobody watches."""
        if wanted == bool(self._wanted.value):
            return
        self._wanted.value = wanted
        before, deadline = [got.value for got in self._got], time.monotonic() + _PATIENCE
        while self._here(before) < VIEWERS + 1 if wanted else self._viewers() > 0:
            if time.monotonic() > deadline or not all(p.is_alive() for p in self._processes):
                raise RuntimeError(f"the load did not {'come' if wanted else 'go'}")
            time.sleep(0.1)
        time.sleep(_SETTLE)

    def got(self) -> tuple[int, int]:
        """Answers and images so far."""
        return self._got[0].value, sum(got.value for got in self._got[1:])

    def close(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _here(self, before: list[int]) -> int:
        """How many of the processes are being served."""
        return sum(got.value > old for got, old in zip(self._got, before, strict=True))

    def _viewers(self) -> float:
        lines = self._server.client.get("/metrics").text.splitlines()
        (found,) = [line for line in lines if line.startswith("pp_bridge_viewers ")]
        return float(found.split()[1])


def _attend(work: Callable[..., Any], address: str, wanted: Any, got: Any, niceness: int) -> None:
    """Does the work while it is wanted."""
    os.nice(niceness)

    async def forever() -> None:
        limits = httpx.Limits(keepalive_expiry=3.0)  # before the server's 5 s: no race
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            while True:
                if wanted.value:
                    await work(client, wanted, got)
                await asyncio.sleep(0.05)

    asyncio.run(forever())


async def _poll_all(client: httpx.AsyncClient, wanted: Any, got: Any) -> None:
    async def poll(number: int) -> None:
        """Asks for the status every second, as the page does."""
        await asyncio.sleep(number / POLLERS)  # not all at once
        while wanted.value:
            (await client.get("/collect/status")).raise_for_status()
            got.value += 1
            await asyncio.sleep(1.0)

    await asyncio.gather(*map(poll, range(POLLERS)))


async def _view(client: httpx.AsyncClient, wanted: Any, got: Any) -> None:
    """Watches both cameras."""
    counting: list[asyncio.Task[None]] = []

    async def count(track: Any) -> None:
        with suppress(MediaStreamError):  # how a track ends
            while True:
                await track.recv()
                got.value += 1

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.on("track", lambda track: counting.append(asyncio.ensure_future(count(track))))
    for _ in range(CAMERAS):
        peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = {"type": "offer", "sdp": peer.localDescription.sdp}
    answer = (await client.post("/live/offer", json=offer)).raise_for_status().json()
    await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    while wanted.value:
        await asyncio.sleep(0.05)
    await peer.close()
    await asyncio.gather(*counting)


if __name__ == "__main__":
    sys.exit(main())
