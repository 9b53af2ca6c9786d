"""Make pictures of the README and of docs/: an animated episode, scenes, presets.

Usage: python -m benchmarks.pictures [--only presets] [--output docs/images]

episode.webp is recorded by `pp-collect` and read back from the dataset's videos, `cam_front` beside
`cam_wrist`. gallery.webp shows one moment of eight episodes. presets.webp shows one moment by every
camera, a row for each preset.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

import collect
from experts.reactive import ReactiveExpert
from pp_env.config import (
    NAMED_CAMERAS,
    RENDER_PRESETS,
    PickPlaceConfig,
    RenderConfig,
    TaskConfig,
    choose_cameras,
)
from pp_env.env import PickPlaceEnv
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_recorder.dataset.reader import Dataset

_SIDE = 320  # pixels of a camera in the episode
_EVERY = 3  # of its frames, so ten per second
_TILE = 240  # pixels of a picture in the gallery
_FRONT = choose_cameras(["cam_front"])

_CUBE = PickPlaceConfig(cameras=_FRONT)
_YCB = PickPlaceConfig(cameras=_FRONT, objects=YCB_OBJECTS, task=TaskConfig(random_yaw=True))
_SEVERAL = PickPlaceConfig(cameras=_FRONT, objects=YCB_OBJECTS, num_objects=4)
_VARIED = PickPlaceConfig(
    cameras=_FRONT, randomization=RANDOMIZATION_PRESETS["full"], objects=YCB_OBJECTS, num_objects=3
)
_WRIST = PickPlaceConfig(cameras=choose_cameras(["cam_wrist"]))

# What each picture shows: configuration, preset, seed, steps of the expert, kind of image. The
# first row is of the cube, one object of the pool, several, and several with everything varied.
_GALLERY = (
    (_CUBE, "default", 34, 80, "rgb"),
    (_YCB, "default", 1, 60, "rgb"),
    (_SEVERAL, "default", 2, 80, "rgb"),
    (_VARIED, "default", 4, 70, "rgb"),
    (_SEVERAL, "pretty", 2, 80, "rgb"),
    (_WRIST, "default", 34, 50, "rgb"),
    (_SEVERAL, "default", 2, 80, "depth"),
    (_SEVERAL, "default", 2, 80, "segmentation"),
)
_COLUMNS = 4
_PRESETS = [
    (PickPlaceConfig(cameras=(camera,)), preset, 1, 80, "rgb")
    for preset in RENDER_PRESETS
    for camera in NAMED_CAMERAS
]
_SEGMENT_RGB = np.array(
    [(20, 20, 24), (70, 74, 82), (190, 150, 100), (235, 235, 240), (230, 60, 60), (60, 180, 90),
     (70, 120, 220)], np.uint8,
)  # fmt: skip


def record_episode() -> list[np.ndarray]:
    """Return every third pair of images, (H, 2 W, 3) uint8, of one recorded episode."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        words = "--num-episodes 1 --expert reactive --cameras cam_front cam_wrist --seed 32"
        size = ["--resolution", str(_SIDE), "--output", str(root)]
        if collect.main([*words.split(), *size]):
            raise SystemExit("the episode was not recorded")
        dataset = Dataset(root)
        front, wrist = (list(dataset.frames(0, camera)) for camera in dataset.cameras)
    return [np.concatenate(pair, axis=1) for pair in zip(front, wrist, strict=True)][::_EVERY]


def take(config: PickPlaceConfig, preset: str, seed: int, steps: int, kind: str) -> np.ndarray:
    """Return one picture, (H, W, 3) uint8, after some steps of the expert."""
    render = RenderConfig(resolution=_TILE, preset=preset)
    config = PickPlaceConfig(**{**vars(config), "render": render})
    env = PickPlaceEnv(config=config, obs_type="pixels_agent_pos", image_types=(kind,))
    observation, info = env.reset(seed=seed)
    expert = ReactiveExpert()
    expert.reset(observation, info, np.random.default_rng(seed))
    for _ in range(steps):
        observation, *_, info = env.step(expert.act(observation, info))
    env.close()
    return colored(observation, config.cameras[0].name, kind)


def colored(observation: Any, camera: str, kind: str) -> np.ndarray:
    """Return an image of some kind as (H, W, 3) uint8; near is bright in depths."""
    if kind == "rgb":
        return observation["pixels"][camera]
    if kind == "segmentation":
        return _SEGMENT_RGB[observation["segmentation"][camera]]
    depth = observation["depth"][camera]
    near, far = depth.min(), np.quantile(depth, 0.55)
    gray = np.clip(255 * (far - depth) / (far - near), 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def tile(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return images of one size side by side, in rows, with white lines between them."""
    images = [np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=255) for image in images]
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def write_webp(path: Path, images: Iterable[np.ndarray], fps: Fraction, quality: int) -> None:
    """Write images (H, W, 3) uint8 as a picture, an endless animation if they are several."""
    images = list(images)
    height, width, _ = images[0].shape
    with av.open(str(path), "w", format="webp", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"quality": str(quality), "compression_level": "6"}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    print(f"{path}: {len(images)} x {width} x {height}, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Run the command line."""
    pictures = ("episode", "gallery", "presets")
    parser = argparse.ArgumentParser(description="Make pictures of the README and of docs/.")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=pictures, default=pictures)
    arguments = parser.parse_args()
    output, only = arguments.output, arguments.only
    if "episode" in only:
        write_webp(output / "episode.webp", record_episode(), Fraction(30, _EVERY), quality=75)
    for name, scenes in (("gallery", _GALLERY), ("presets", _PRESETS)):
        if name in only:
            image = tile([take(*scene) for scene in scenes], _COLUMNS)
            write_webp(output / f"{name}.webp", [image], Fraction(1), quality=85)


if __name__ == "__main__":
    main()
