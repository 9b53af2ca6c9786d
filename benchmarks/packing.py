"""Time a dataset's videos in LeRobot, with one file per episode and packed.

Usage: python -m benchmarks.packing --lerobot .venv-lerobot/bin/python [--episodes 1000]

The datasets have tiny episodes, with the recorder's own files, of one camera. LeRobot's operations
run in its own environment, each in a process that is ended after `--limit` seconds.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pp_recorder.dataset.episode import EncodedEpisode
from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.video import VideoEncoder
from pp_recorder.dataset.writer import LeRobotWriter

CAMERA = "observation.images.cam_high"
_LENGTH, _SIDE, _FPS = 10, 64, 30


def main() -> int:
    """Print one JSON line per layout and operation, with seconds or None; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lerobot", required=True, help="Python of an environment with lerobot")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=600.0, help="s for each operation")
    args = parser.parse_args()
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


def make_dataset(root: Path, episodes: int, packed: bool) -> None:
    """Write tiny episodes with the recorder, or go on with them; they share one encoded clip."""
    features = {
        "observation.state": Feature("float32", (8,)),
        "action": Feature("float32", (8,)),
        CAMERA: image_feature(_SIDE, _SIDE),
    }
    schema = DatasetSchema(features, lambda _: {}, _FPS, "benchmark", "none", {"seed": 0})
    writer = LeRobotWriter(root, schema, resume=True)
    writer.scratch.mkdir(exist_ok=True)
    clip = writer.scratch / "clip.mp4"
    encoder = VideoEncoder(clip, schema.codec, _FPS)
    for k in range(_LENGTH):
        encoder.add(np.full((_SIDE, _SIDE, 3), 20 * k, np.uint8))
    image_stats = encoder.finish(_LENGTH)
    numbers = np.zeros((_LENGTH, 8), np.float32)
    outcome = {name: np.zeros(_LENGTH) for name in ("next.reward", "next.done", "next.success")}
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
