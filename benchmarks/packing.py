"""Time a dataset's videos in LeRobot, with one file per episode and packed.

Usage: python -m benchmarks.packing --lerobot .venv-lerobot/bin/python [--episodes 1000]
       python -m benchmarks.packing --join-with 1,2,4 [--episodes 1000]

The datasets have tiny episodes, with the recorder's own files, of one camera. LeRobot's operations
run in its own environment, each in a process that is ended after `--limit` seconds. With
`--join-with`, only joining is timed, of episodes as long as the task's, with so many processes.
"""

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pp_recorder.dataset import packing
from pp_recorder.dataset.episode import EncodedEpisode
from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.dataset.writer import LeRobotWriter

CAMERA = "observation.images.cam_high"
_LENGTH, _SIDE, _FPS = 10, 64, 30
_REAL_LENGTH, _REAL_SIDE = 268, 256  # of the expert's episodes, and of the images of docs/gpu.md


def main() -> int:
    """Print one JSON line per layout and operation, with seconds or None; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--lerobot", help="Python of an environment with lerobot")
    what.add_argument("--join-with", metavar="N,N...", help="time joining with N processes")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=600.0, help="s for each operation")
    args = parser.parse_args()
    if args.join_with:
        return time_joining(args.episodes, [int(word) for word in args.join_with.split(",")])
    with tempfile.TemporaryDirectory() as folder:
        loose, packed = Path(folder) / "loose", Path(folder) / "packed"
        begin = time.perf_counter()
        make_dataset(loose, args.episodes, packed=False)
        _print("one file each", "record", time.perf_counter() - begin)
        shutil.copytree(loose, packed)
        begin = time.perf_counter()
        make_dataset(packed, args.episodes, packed=True)
        _print("packed", "resume and pack", time.perf_counter() - begin)
        for layout, root in (("one file each", loose), ("packed", packed)):
            sizes = [path.stat().st_size for path in root.rglob("*.mp4")]
            _print(layout, "video files", len(sizes))
            _print(layout, "MB of videos", sum(sizes) / 1e6)
            for operation in ("open", "access", "delete", "split", "merge"):
                seconds = _run(args.lerobot, operation, root, Path(folder) / "out", args.limit)
                _print(layout, operation, seconds)
    return 0


def time_joining(episodes: int, numbers: list[int]) -> int:
    """Print how long joining takes with some numbers of processes; return 1 if bytes differ."""
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        loose, joined = Path(folder) / "loose", Path(folder) / "joined"
        make_dataset(loose, episodes, packed=False, images=_moving_pattern())
        for number in numbers:
            shutil.rmtree(joined, ignore_errors=True)
            shutil.copytree(loose, joined)
            begin, used = time.perf_counter(), _processor_time()
            packing.convert(joined, "packed", number)
            _print(f"{number} processes", "join, s", time.perf_counter() - begin)
            _print(f"{number} processes", "join, CPU s", _processor_time() - used)
            found.add(_digest(joined))
    return int(len(found) > 1)


def _moving_pattern() -> np.ndarray:
    """Return as many images as an episode of the task has, (n, H, W, 3) uint8."""
    side = _REAL_SIDE // 8
    squares = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    image = np.kron(squares, np.ones((8, 8, 1), np.uint8))
    return np.stack([np.roll(image, k, axis=1) for k in range(_REAL_LENGTH)])


def _processor_time() -> float:
    """Return the processor time of this process and of those that have ended, in s."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def make_dataset(root: Path, episodes: int, packed: bool, images: np.ndarray | None = None) -> None:
    """Write episodes with the recorder, or go on with them; they share one encoded clip.

    Args:
        root: The dataset's directory.
        episodes: How many there shall be.
        packed: Whether to join their videos.
        images: (n, H, W, 3) uint8 of each; default few and tiny ones.
    """
    if images is None:
        shades = 20 * np.arange(_LENGTH, dtype=np.uint8)
        images = np.broadcast_to(shades[:, None, None, None], (_LENGTH, _SIDE, _SIDE, 3))
    length, side = images.shape[:2]
    features = {
        "observation.state": Feature("float32", (8,)),
        "action": Feature("float32", (8,)),
        CAMERA: image_feature(side, side),
    }
    schema = DatasetSchema(features, lambda _: {}, _FPS, "benchmark", "none", {"seed": 0})
    writer = LeRobotWriter(root, schema, resume=True)
    writer.scratch.mkdir(exist_ok=True)
    clip = writer.scratch / "clip.mp4"
    encoder = VideoEncoder(clip, schema.codec, _FPS)
    for image in images:
        encoder.add(np.ascontiguousarray(image))
    image_stats = encoder.finish(length)
    numbers = np.zeros((length, 8), np.float32)
    outcome = {name: np.zeros(length) for name in ("next.reward", "next.done", "next.success")}
    columns = {"observation.state": numbers, "action": numbers, **outcome}
    for _ in range(writer.num_episodes, episodes):
        copy = shutil.copyfile(clip, writer.scratch / "copy.mp4")
        writer.add_episode(EncodedEpisode(columns, {CAMERA: (copy, image_stats)}, "benchmark", {}))
    writer.finalize() if packed else writer.close()


def _run(python: str, operation: str, root: Path, out: Path, limit: float) -> float | None:
    shutil.rmtree(out, ignore_errors=True)
    script = Path(__file__).with_name("packing_lerobot.py")
    command = [python, str(script), operation, str(root), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        print(error.stderr[-2000:], file=sys.stderr)
        return None
    return float(done.stdout.splitlines()[-1])


def _print(layout: str, what: str, value: float | None) -> None:
    print(json.dumps({"layout": layout, "what": what, "value": value}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
