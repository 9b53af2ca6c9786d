"""Measure the age of an image when the browser shows it.

Run by `python -m benchmarks.bridge latency`. Needs playwright and chromium. The images contain the
time at which they were published.
"""

import argparse
import multiprocessing
import shutil
import socket
import statistics
import time
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from pp_bridge.settings import WebSettings
from pp_bridge.shared_state import SharedState
from pp_bridge.web_process import WebProcess

_CONTEXT = multiprocessing.get_context("spawn")
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


def measure_latency(args: argparse.Namespace) -> dict[str, Any]:
    """Return statistics of the age, ms, of images in the browser's canvas, by transport.

    The age counts from the moment at which an image is published.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    shared_state = SharedState(["cam_high", "cam_wrist"], (args.resolution, args.resolution))
    shared_state.publish_status({"state": "collecting"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        media = min(probe.getsockname()[1], 60000)
    web = WebProcess(shared_state, WebSettings("127.0.0.1", 0, media, None, root=None))
    publisher = _CONTEXT.Process(
        target=_publish_clock, args=(shared_state, args.resolution), daemon=True
    )
    publisher.start()
    results = {}
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        for transport in ("WebRTC", "JPEG"):
            page = browser.new_page()
            if transport == "JPEG":
                page.add_init_script("delete window.RTCPeerConnection")
            results[transport] = _measure_ages(page, f"http://127.0.0.1:{web.port}", args.seconds)
            page.close()
    publisher.terminate()
    web.close()
    return results


def _measure_ages(page: Page, address: str, seconds: float) -> dict[str, float]:
    page.goto(address)
    page.wait_for_function(
        "() => document.getElementById('transport').textContent.startsWith('Live by')",
        timeout=60_000,
    )
    page.wait_for_timeout(2000)
    ages = sorted(page.evaluate(_READ_CLOCK, seconds))
    return {
        "images_per_second": len(ages) / seconds,
        "median_ms": statistics.median(ages),
        "p95_ms": ages[int(0.95 * len(ages))],
        "max_ms": ages[-1],
    }


def _publish_clock(shared_state: SharedState, size: int) -> None:
    """Publish 30 images per second that contain the time in ms, a square for each bit."""
    image = np.random.default_rng(0).integers(60, 120, (size // 16, size // 16, 3), np.uint8)
    image = image.repeat(16, 0).repeat(16, 1)
    start = time.monotonic()
    for tick in range(10**9):
        time.sleep(max(start + tick / 30 - time.monotonic(), 0))
        shown = np.roll(image, tick, axis=1)
        clock = round(1e3 * time.time()) % 2**_BITS
        bits = [clock >> (_BITS - 1 - bit) & 1 for bit in range(_BITS)]
        row = np.repeat(np.array(bits, np.uint8) * 255, _BLOCK)
        shown[:_BLOCK, : row.size] = row[None, :, None]
        shared_state.publish_images(dict.fromkeys(shared_state.cameras, shown))
