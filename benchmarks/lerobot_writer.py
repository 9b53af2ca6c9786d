"""Write given frames with lerobot's own writer; runs in an environment with lerobot.

Usage: python lerobot_writer.py FRAMES.npy STREAMING(0|1) EPISODES
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # last: it has folders called as ours
from check_dataset import import_lerobot  # noqa: E402

_CAMERAS = ("cam_high", "cam_wrist")


def main() -> None:
    """Print the wall and CPU time, s, of each episode after the first."""
    version, dataset_class = import_lerobot()
    frames = np.load(sys.argv[1])
    streaming, episodes = bool(int(sys.argv[2])), int(sys.argv[3])
    image = {
        "dtype": "video",
        "shape": frames.shape[2:],
        "names": ["height", "width", "channels"],
    }
    features = {
        "observation.state": {"dtype": "float32", "shape": (23,), "names": None},
        "action": {"dtype": "float32", "shape": (8,), "names": None},
        **{f"observation.images.{name}": image for name in _CAMERAS},
    }
    extra = {"streaming_encoding": True, "encoder_queue_maxsize": len(frames)} if streaming else {}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = dataset_class.create(
            "local/bench", fps=30, features=features, root=f"{folder}/set", vcodec="h264", **extra
        )
        for k in range(1 + episodes):
            wall, cpu = time.perf_counter(), time.process_time()
            for pair in frames:
                images = zip(_CAMERAS, pair, strict=True)
                dataset.add_frame(
                    {
                        "observation.state": np.zeros(23, np.float32),
                        "action": np.zeros(8, np.float32),
                        "task": "pick and place",
                        **{f"observation.images.{name}": image for name, image in images},
                    }
                )
            dataset.save_episode()
            if k:
                seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
        dataset.finalize()
    print(json.dumps({"version": f"lerobot {version}", "seconds": seconds}))


if __name__ == "__main__":
    main()
