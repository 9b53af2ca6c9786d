"""What watching costs a collection, and how old a picture is when the browser shows it.

Usage: python -m benchmarks.bridge load      # 50 pollers and 4 viewers, on and off in turns
       python -m benchmarks.bridge latency   # needs chromium; a clock is drawn into the pictures

Needs the extras [bridge] and [dev]. The load comes from this machine, at low priority, for
pollers and viewers are elsewhere in reality; what they got is reported beside what they cost.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from playwright.sync_api import Page, sync_playwright

from benchmarks import RESULTS
from bridge.board import Board
from bridge.web import WebProcess, WebSettings
from tests.bridge_server import BridgeServer

POLLERS, VIEWERS = 50, 4
_CONTEXT = multiprocessing.get_context("spawn")
_SETTLE = 3.0  # s after the load changes
_BITS, _BLOCK = 32, 16  # of the clock, and its squares in pixels

_READ_CLOCK = """(seconds) => new Promise((done) => {
  const source = document.querySelector("#cameras video, #cameras img"), ages = [];
  const canvas = new OffscreenCanvas(512, 32).getContext("2d", { willReadFrequently: true });
  const end = performance.now() + 1000 * seconds;
  let last = 0;
  const next = () => source.requestVideoFrameCallback
    ? source.requestVideoFrameCallback(look) : requestAnimationFrame(look);
  const look = () => {
    const now = Date.now();
    canvas.drawImage(source, 0, 0);
    const data = canvas.getImageData(0, 0, 512, 16).data;
    let clock = 0;
    for (let x = 8; x < 512; x += 16) clock = 2 * clock + (data[4 * (8 * 512 + x)] > 127);
    const age = (now - clock) % 4294967296;
    if (clock !== last) ages.push((age + 4294967296) % 4294967296);
    last = clock;
    performance.now() < end ? next() : done(ages);
  };
  next();
})"""


def main(argv: list[str] | None = None) -> int:
    """Runs one of the two; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "latency"))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=6, help="with and without the load, each")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--preset", default="fast")
    args = parser.parse_args(argv)
    results = measure_load(args) if args.what == "load" else measure_latency(args)
    print(json.dumps(results, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"bridge_{args.what}.json").write_text(json.dumps(results, indent=2))
    return 0


def measure_load(args: argparse.Namespace) -> dict[str, Any]:
    """Frames per second, and CPU per frame of the simulator's process, with and without load."""
    options = ("--resolution", str(args.resolution), "--preset", args.preset)
    wanted, got = _CONTEXT.Value("b", 0), _CONTEXT.Array("Q", 2)
    measured: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    served: list[list[float]] = []
    with tempfile.TemporaryDirectory() as root, BridgeServer(Path(root), *options) as server:
        load = _CONTEXT.Process(target=_load, args=(server.address, wanted, got), daemon=True)
        load.start()
        server.start("load", num_episodes=10**6, steps_per_segment=30)
        for turn in range(2 * args.turns):
            wanted.value = turn % 2
            time.sleep(_SETTLE)
            before = list(got)
            seconds, frames, cpu = _watch(server, args.seconds)
            measured["with" if wanted.value else "without"].append((frames / seconds, cpu / frames))
            if wanted.value:
                served.append([(a - b) / seconds for a, b in zip(got, before, strict=True)])
        load.terminate()
        server.client.post("/collect/stop")
    rate = {key: statistics.median(r for r, _ in turns) for key, turns in measured.items()}
    cpu = {key: statistics.median(c for _, c in turns) for key, turns in measured.items()}
    return {
        "frames_per_second": rate,
        "cost_in_frames_per_second": 1 - rate["with"] / rate["without"],
        "simulator_cpu_ms_per_frame": {key: 1e3 * value for key, value in cpu.items()},
        "cost_in_simulator_cpu": cpu["with"] / cpu["without"] - 1,
        "answers_per_second": statistics.median(answers for answers, _ in served),
        "pictures_per_second": statistics.median(pictures for _, pictures in served),
        "turns": measured,
    }


def _watch(server: BridgeServer, seconds: float) -> tuple[float, int, float]:
    """Wall time in s, frames, and CPU time in s of the simulator's process, of a while."""

    def look() -> tuple[float, int, float]:
        status = server.status()
        frames = status["attempts"] * status["frames_per_episode"] + status["frame"]
        return time.monotonic(), frames, _cpu_seconds(server.process.pid)

    before = look()
    time.sleep(seconds)
    after = look()
    if after[1] <= before[1]:
        raise RuntimeError(f"no frame was collected in {seconds} s: {server.status()}")
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _load(address: str, wanted: Any, got: Any) -> None:
    """The pollers and viewers, while they are wanted; counts answers and pictures."""
    os.nice(10)
    asyncio.run(_load_forever(address, wanted, got))


async def _load_forever(address: str, wanted: Any, got: Any) -> None:
    limits = httpx.Limits(keepalive_expiry=3.0)  # before the server's 5 s: no race
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        while True:
            if not wanted.value:
                await asyncio.sleep(0.1)
                continue
            peers = [await _view(client, got) for _ in range(VIEWERS)]
            await asyncio.gather(*(_poll(client, wanted, got) for _ in range(POLLERS)))
            for peer in peers:
                await peer.close()


async def _poll(client: httpx.AsyncClient, wanted: Any, got: Any) -> None:
    """Asks for the status every second, as the page does."""
    while wanted.value:
        (await client.get("/collect/status")).raise_for_status()
        got[0] += 1
        await asyncio.sleep(1.0)


async def _view(client: httpx.AsyncClient, got: Any) -> RTCPeerConnection:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.on("track", lambda track: _keep(asyncio.ensure_future(_count(track, got))))
    for _ in range(2):
        peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = {"type": "offer", "sdp": peer.localDescription.sdp}
    answer = (await client.post("/live/offer", json=offer)).raise_for_status().json()
    await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    return peer


async def _count(track: Any, got: Any) -> None:
    with suppress(MediaStreamError):  # how a track ends
        while True:
            await track.recv()
            got[1] += 1


_TASKS: set[asyncio.Task] = set()


def _keep(task: asyncio.Task) -> None:
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def measure_latency(args: argparse.Namespace) -> dict[str, Any]:
    """Age in ms of pictures in the browser's canvas, counted from when the bridge gets them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    board = Board(["cam_high", "cam_wrist"], args.resolution)
    board.post({"state": "collecting"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        media = min(probe.getsockname()[1], 60000)
    web = WebProcess(board, WebSettings("127.0.0.1", 0, media, None, root=None))
    feeder = _CONTEXT.Process(target=_feed, args=(board, args.resolution), daemon=True)
    feeder.start()
    results = {}
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        for transport in ("WebRTC", "JPEG"):
            page = browser.new_page()
            if transport == "JPEG":
                page.add_init_script("delete window.RTCPeerConnection")
            results[transport] = _ages(page, f"http://127.0.0.1:{web.port}", args.seconds)
            page.close()
    feeder.terminate()
    web.close()
    return results


def _ages(page: Page, address: str, seconds: float) -> dict[str, float]:
    page.goto(address)
    page.wait_for_function(
        "() => document.getElementById('transport').textContent.startsWith('Live by')",
        timeout=60_000,
    )
    page.wait_for_timeout(2000)
    ages = sorted(page.evaluate(_READ_CLOCK, seconds))
    return {
        "pictures_per_second": len(ages) / seconds,
        "median_ms": statistics.median(ages),
        "p95_ms": ages[int(0.95 * len(ages))],
        "max_ms": ages[-1],
    }


def _feed(board: Board, size: int) -> None:
    """Shows 30 pictures per second that have the time in ms drawn into them, bit by bit."""
    picture = np.random.default_rng(0).integers(60, 120, (size // 16, size // 16, 3), np.uint8)
    picture = picture.repeat(16, 0).repeat(16, 1)
    start = time.monotonic()
    for tick in range(10**9):
        time.sleep(max(start + tick / 30 - time.monotonic(), 0))
        shown = np.roll(picture, tick, axis=1)
        clock = round(1e3 * time.time()) % 2**_BITS
        bits = [clock >> (_BITS - 1 - bit) & 1 for bit in range(_BITS)]
        row = np.repeat(np.array(bits, np.uint8) * 255, _BLOCK)
        shown[:_BLOCK, : row.size] = row[None, :, None]
        board.show(dict.fromkeys(board.cameras, shown))


if __name__ == "__main__":
    sys.exit(main())
