"""Time one operation of LeRobot on a dataset; runs in an environment with lerobot.

Usage: python packing_lerobot.py open|access|delete|split|merge DATASET OUTPUT
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # last: it has folders called as ours
from check_dataset import import_lerobot  # noqa: E402

_ITEMS = 200


def main() -> None:
    """Print the seconds that the operation takes, without the imports."""
    operation, root, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    _, dataset_class = import_lerobot()
    from lerobot.datasets import dataset_tools

    begin = time.perf_counter()
    dataset = dataset_class("local/set", root=root, video_backend="pyav")
    if operation != "open":
        begin = time.perf_counter()
    if operation == "access":
        for index in np.random.default_rng(0).integers(0, len(dataset), _ITEMS):
            dataset[int(index)]
    elif operation == "delete":
        dataset_tools.delete_episodes(dataset, [1, 3, 5], output_dir=output)
    elif operation == "split":
        dataset_tools.split_dataset(dataset, {"train": 0.9, "test": 0.1}, output_dir=output)
    elif operation == "merge":
        dataset_tools.merge_datasets([dataset, dataset], "local/merged", output_dir=output)
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
