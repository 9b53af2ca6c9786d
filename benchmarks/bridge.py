"""Measure the bridge: the cost of watching a collection, and the age of images in the browser.

Usage: python -m benchmarks.bridge load      # 50 pollers and 4 viewers, alternately on and off
       python -m benchmarks.bridge latency   # needs playwright and chromium

`load` needs the extra [bridge] and httpx. On 8 or more cores, the simulator's process, the web's
process, and pollers and viewers have separate cores, as if the load came from other machines. The
answers and images that the load received are reported beside its cost.
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
from pp_collect.factory import make_config, make_env
from pp_collect.options import SimulatorOptions
from tests.pp_bridge.server import BridgeServer

POLLERS, VIEWERS, CAMERAS = 50, 4, 2
_ENOUGH_CORES = 8
_CONTEXT = multiprocessing.get_context("spawn")
_SETTLE = 1.0  # s after the load was switched on or off
_TIMEOUT = 30.0  # s to switch it on or off
_RENDERS = 100


class Cores(NamedTuple):
    """Processors of each part; the same ones for all parts where there are too few."""

    simulator: list[int]
    web: list[int]
    load: list[int]

    @property
    def are_separate(self) -> bool:
        """Return whether each part has processors of its own."""
        return self.simulator != self.load


class Measurement(NamedTuple):
    """Frames collected over some time, and their cost.

    Attributes:
        seconds: Wall time, s.
        frames: Number of frames collected.
        simulator_cpu: CPU time of the simulator's process, s.
        web_cpu: CPU time of the web's process, s.
    """

    seconds: float
    frames: int
    simulator_cpu: float
    web_cpu: float

    def __sub__(self, before: "Measurement") -> "Measurement":
        return Measurement(*(b - a for a, b in zip(before, self, strict=True)))

    @property
    def ms_per_frame(self) -> float:
        """Return the wall time of a frame, ms."""
        return 1e3 * self.seconds / self.frames

    @property
    def cpu_ms_per_frame(self) -> float:
        """Return the CPU time of the simulator's process for a frame, ms."""
        return 1e3 * self.simulator_cpu / self.frames


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "latency"), help="what to measure")
    parser.add_argument("--seconds", type=float, default=4.5, help="duration of a measurement, s")
    parser.add_argument(
        "--pairs", type=int, default=10, help="number of pairs without and with the load"
    )
    parser.add_argument(
        "--within", type=float, default=140.0, help="total time, s; limits the pairs"
    )
    parser.add_argument("--resolution", type=int, default=512, help="of images, pixels")
    parser.add_argument("--preset", default="fast", help="image quality")
    args = parser.parse_args(argv)
    if args.what == "load":
        results = measure_load(args)
        print(table(results))
    else:
        from benchmarks.bridge_latency import measure_latency  # `load` needs no browser

        results = measure_latency(args)
        print(*(f"{name}: {ages}" for name, ages in results.items()), sep="\n")
    benchmarks.save(f"bridge_{args.what}", results)
    return 0


def measure_load(args: argparse.Namespace) -> dict[str, Any]:
    """Return speed and CPU time of a collection without and with the load.

    Args:
        args: The command line.
    """
    until = time.monotonic() + args.within
    cores = allocate_cores(os.sched_getaffinity(0))
    options = SimulatorOptions(resolution=args.resolution, preset=args.preset)
    words = ("--resolution", str(args.resolution), "--preset", args.preset)
    os.sched_setaffinity(0, cores.simulator)  # children inherit it
    with _CONTEXT.Pool(1) as pool:
        rendering_ms = pool.apply(_rendering_ms, (options,))
    with tempfile.TemporaryDirectory() as root, BridgeServer(Path(root), *words) as server:
        _pin(server.web_process, cores.web)
        os.sched_setaffinity(0, cores.load)
        server.start("load", num_episodes=10**6, steps_per_segment=30)
        with closing(Load(server, niceness=0 if cores.are_separate else 10)) as load:
            pairs, served = _measure_pairs(server, load, args, until)
        server.client.post("/collect/stop")
    os.sched_setaffinity(0, {*cores.simulator, *cores.web, *cores.load})
    return {
        "cores": cores._asdict(),
        "cores_apart": cores.are_separate,
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


def allocate_cores(available: Iterable[int]) -> Cores:
    """Return a quarter for the simulator, a quarter for the web, and the rest for the load."""

    def core(cpu: int) -> tuple[int, ...]:
        """Return a key that keeps the processors of one core together: parts share no core."""
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
    """Return the median, and the second lowest and second highest value.

    Of ten values, those two enclose the true median with a probability of 98 %.
    """
    ordered = sorted(values)
    trim = 1 if len(ordered) > 3 else 0
    ends = {"low": ordered[trim], "high": ordered[-1 - trim]}
    return {"median": statistics.median(ordered), **ends}


def table(results: dict[str, Any]) -> str:
    """Return the results as a text table."""
    without, with_, cost = results["without"], results["with"], results["cost"]
    pairs = len(results["pairs"])

    def row(name: str, key: str, change: str) -> str:
        found = "{median:6.1%} ({low:.1%} to {high:.1%})".format(**cost[change])
        return f"{name:34}{without[key]:>9.2f}{with_[key]:>9.2f}   {found}"

    rendering_ms = results["rendering_ms"]
    requested = POLLERS, VIEWERS * CAMERAS * min(31.0, with_["frames_per_second"])
    lines = [
        f"{POLLERS} pollers and {VIEWERS} viewers; pairs of measurements: {pairs}",
        f"{'':34}{'without':>9}{'with':>9}   cost: median (second lowest to second highest)",
        row("frames per second", "frames_per_second", "frames_per_second"),
        row(f"ms per frame, less {rendering_ms:.2f} of rendering", "ms_aside", "rendering_aside"),
        row("ms of CPU, simulator's process", "cpu_ms", "simulator_cpu"),
        f"{'cores used by the web':34}{without['web_cores']:>9.2f}{with_['web_cores']:>9.2f}",
        f"served: {results['answers_per_second']:.0f} answers/s of {requested[0]}, "
        f"{results['images_per_second']:.0f} images/s of {requested[1]:.0f}",
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


def _measure_pairs(
    server: BridgeServer, load: "Load", args: argparse.Namespace, until: float
) -> tuple[list[tuple[Measurement, Measurement]], list[tuple[float, float]]]:
    """Return pairs without and with the load, and the answers and images per second of each."""
    pairs, served, longest = [], [], 0.0
    while len(pairs) < args.pairs and (not pairs or time.monotonic() + longest < until):
        began, measurements = time.monotonic(), {}
        for active in (False, True) if len(pairs) % 2 == 0 else (True, False):  # against drift
            load.switch(active)
            before, received_before = _read_totals(server), load.received()
            time.sleep(args.seconds)
            measurements[active] = measurement = _read_totals(server) - before
            if measurement.frames <= 0:
                raise RuntimeError(f"no frame in {args.seconds} s: {server.status()}")
            if active:
                received = zip(received_before, load.received(), strict=True)
                served.append(tuple((b - a) / measurement.seconds for a, b in received))
        pairs.append((measurements[False], measurements[True]))
        longest = max(longest, time.monotonic() - began)
    return pairs, served


def _read_totals(server: BridgeServer) -> Measurement:
    """Return the totals of the collection until now."""
    status = server.status()
    frames = status["attempts"] * status["frames_per_episode"] + status["frame"]
    cpu = [_cpu_seconds(pid) for pid in (server.process.pid, server.web_process)]
    return Measurement(time.monotonic(), frames, *cpu)


def _summary(measurements: list[Measurement], rendering_ms: float) -> dict[str, float]:
    """Return the medians of speed and CPU time."""

    def median(of: Callable[[Measurement], float]) -> float:
        return statistics.median(map(of, measurements))

    return {
        "frames_per_second": median(lambda measurement: measurement.frames / measurement.seconds),
        "ms_aside": median(lambda measurement: measurement.ms_per_frame - rendering_ms),
        "cpu_ms": median(lambda measurement: measurement.cpu_ms_per_frame),
        "web_cores": median(lambda measurement: measurement.web_cpu / measurement.seconds),
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pin(pid: int, cpus: list[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def _rendering_ms(options: SimulatorOptions) -> float:
    """Return the median time to render the images of a frame, ms."""
    with closing(make_env(options, make_config(options), cameras=True)) as env:
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
    """Pollers and viewers in processes of their own, switched on and off.

    Args:
        server: The service that they watch.
        niceness: Added to that of their processes.
    """

    def __init__(self, server: BridgeServer, niceness: int) -> None:
        self._server = server
        self._active = _CONTEXT.Value("b", 0)
        self._counts = [_CONTEXT.Value("Q", 0) for _ in range(1 + VIEWERS)]
        tasks = [_poll_all, *[_view] * VIEWERS]
        self._processes = [
            _CONTEXT.Process(
                target=_run_while_active,
                args=(task, server.address, self._active, count, niceness),
                daemon=True,
            )
            for task, count in zip(tasks, self._counts, strict=True)
        ]
        for process in self._processes:
            process.start()

    def switch(self, active: bool) -> None:
        """Switch the load on and wait until all are served, or off and wait until all are gone.

        Raises:
            RuntimeError: That took too long, or a process has ended.
        """
        if active == bool(self._active.value):
            return
        self._active.value = active
        before, deadline = [count.value for count in self._counts], time.monotonic() + _TIMEOUT
        while self._count_served(before) < VIEWERS + 1 if active else self._viewers() > 0:
            if time.monotonic() > deadline or not all(p.is_alive() for p in self._processes):
                raise RuntimeError(f"the load did not {'come' if active else 'go'}")
            time.sleep(0.1)
        time.sleep(_SETTLE)

    def received(self) -> tuple[int, int]:
        """Return the numbers of answers and images received until now."""
        return self._counts[0].value, sum(count.value for count in self._counts[1:])

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _count_served(self, before: list[int]) -> int:
        """Return the number of processes that received something since `before`."""
        return sum(count.value > old for count, old in zip(self._counts, before, strict=True))

    def _viewers(self) -> float:
        lines = self._server.client.get("/metrics").text.splitlines()
        (found,) = [line for line in lines if line.startswith("pp_bridge_viewers ")]
        return float(found.split()[1])


def _run_while_active(
    task: Callable[..., Any], address: str, active: Any, count: Any, niceness: int
) -> None:
    """Run a task whenever the load is switched on.

    Args:
        task: `_poll_all` or `_view`.
        address: Of the service.
        active: Shared flag, true while the load is on.
        count: Shared number of answers or images received.
        niceness: Added to that of this process.
    """
    os.nice(niceness)

    async def forever() -> None:
        limits = httpx.Limits(keepalive_expiry=3.0)  # before the server's 5 s: no race
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            while True:
                if active.value:
                    await task(client, active, count)
                await asyncio.sleep(0.05)

    asyncio.run(forever())


async def _poll_all(client: httpx.AsyncClient, active: Any, count: Any) -> None:
    """Run all pollers."""

    async def poll(number: int) -> None:
        """Request the status every second, as the page does."""
        await asyncio.sleep(number / POLLERS)  # not all at once
        while active.value:
            (await client.get("/collect/status")).raise_for_status()
            count.value += 1
            await asyncio.sleep(1.0)

    await asyncio.gather(*map(poll, range(POLLERS)))


async def _view(client: httpx.AsyncClient, active: Any, count: Any) -> None:
    """Watch both cameras."""
    receivers: list[asyncio.Task[None]] = []

    async def receive(track: Any) -> None:
        with suppress(MediaStreamError):  # how a track ends
            while True:
                await track.recv()
                count.value += 1

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.on("track", lambda track: receivers.append(asyncio.ensure_future(receive(track))))
    for _ in range(CAMERAS):
        peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = {"type": "offer", "sdp": peer.localDescription.sdp}
    answer = (await client.post("/live/offer", json=offer)).raise_for_status().json()
    await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    while active.value:
        await asyncio.sleep(0.05)
    await peer.close()
    await asyncio.gather(*receivers)


if __name__ == "__main__":
    sys.exit(main())
