"""Count the starts at which a camera does not show the object or the marker.

Usage: python -m benchmarks.cameras [--seeds 1000] [--episodes 20] [--size 256]

A start is hidden from a camera that shows less than a quarter of the object's or of the marker's
pixels that it shows with the arm turned away. Of the expert's episodes it prints how far inside the
image fingertips, object and marker stay. The camera on the hand is left out: it sees what the hand
points at. Writes benchmarks/results/cameras.json.
"""

import argparse
import dataclasses
import itertools

import numpy as np
from gymnasium.utils import seeding

from benchmarks import save
from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv, panda, rotation, task
from pp_env.config import NAMED_CAMERAS, CameraConfig, RenderConfig
from pp_env.layout import OBSERVATION
from pp_env.sim.api import SEGMENTS, InitialState
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_recorder.rollout import EpisodeSink, Step, run_episode

FIXED = tuple(camera for camera in NAMED_CAMERAS if camera.parent == "world")
HIDDEN_BELOW = 0.25  # share of the pixels that the camera shows without the arm
_SEEN = ("object", "marker")
_AWAY = np.array([2.8, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])  # rad, behind the robot's base
_MAX_STEPS = 400


@dataclasses.dataclass(frozen=True)
class Visibility:
    """What one camera shows of the starts.

    Attributes:
        shares: (starts, 2) shown pixels of object and marker, as a share of those without the arm.
        pixels: (starts, 2) the pixels without the arm, as a share of the image.
    """

    shares: np.ndarray
    pixels: np.ndarray

    @property
    def hidden(self) -> np.ndarray:
        """Seeds of the starts at which the object or the marker is hidden."""
        return np.flatnonzero(self.shares.min(axis=1) < HIDDEN_BELOW)


def watch_starts(seeds: int, size: int) -> dict[str, Visibility]:
    """Return what each fixed camera shows of the starts of seeds 0, 1, ...

    Args:
        seeds: Number of starts.
        size: Width and height of the images, pixels.
    """
    config = _config(size)
    simulator = MujocoSimulator(config)
    counts = np.array([_count_pixels(simulator, config, seed) for seed in range(seeds)])
    shown, whole = counts.transpose(1, 2, 0, 3)
    simulator.close()
    return {
        camera.name: Visibility(shown[i] / np.maximum(whole[i], 1), whole[i] / size**2)
        for i, camera in enumerate(FIXED)
    }


def watch_episodes(episodes: int) -> dict[str, float]:
    """Return how far inside each fixed camera's image everything that matters stays.

    Returns:
        By camera, the least distance from the border, as a share of half the image; below 0 is
        outside.
    """
    env, watch = PickPlaceEnv(config=_config(64), terminate_on_success=False), _Watch()
    for seed in range(episodes):
        run_episode(env, PickPlaceExpert(), [watch], seed, seed, _MAX_STEPS)
    env.close()
    return watch.margins


class _Watch(EpisodeSink):
    def __init__(self) -> None:
        self.margins = {camera.name: 1.0 for camera in FIXED}

    def add(self, step: Step) -> None:
        points = _points(step)
        for camera in FIXED:
            found = margin(camera, points)
            self.margins[camera.name] = min(self.margins[camera.name], found)


def margin(camera: CameraConfig, points: np.ndarray) -> float:
    """Return the least distance of points from the border of a fixed camera's square image.

    Args:
        camera: The camera.
        points: (n, 3), m, world frame.

    Returns:
        The distance as a share of half the image; below 0 for a point outside.
    """
    seen = (points - camera.position) @ camera.rotation()
    offset = np.abs(seen[:, :2] / seen[:, 2:]) / np.tan(np.radians(camera.fov_deg / 2))
    return float(1 - offset.max())


def _points(step: Step) -> np.ndarray:
    """Return fingertips, corners of the object's box and rim of the marker, (n, 3), m, world."""
    state, info = OBSERVATION.unpack(step.observation), step.info
    left, right = state["gripper_pos"]
    tips = np.array([(0.0, left, panda.TCP_OFFSET), (0.0, -right, panda.TCP_OFFSET)])
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * info["object_size"]
    angles, radius = np.linspace(0, 2 * np.pi, 16), PickPlaceConfig().task.place_tolerance
    rim = radius * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    return np.concatenate(
        [
            state["eef_pos"] + rotation.rotate(state["eef_quat"], tips),
            info["object_pos"] + rotation.rotate(info["object_quat"], corners),
            info["goal_pos"] + rim,
        ]
    )


def _config(size: int) -> PickPlaceConfig:
    return PickPlaceConfig(cameras=FIXED, render=RenderConfig(resolution=size, preset="fast"))


def _count_pixels(
    simulator: MujocoSimulator, config: PickPlaceConfig, seed: int
) -> list[list[list[int]]]:
    """Return a start's pixels: with the arm and without, per camera, of object and marker."""
    start = task.sample_start(seeding.np_random(seed)[0], config)
    initial = task.initial_state(start, config)
    without_arm = dataclasses.replace(initial, joint_pos=_AWAY)
    return [_count(simulator, state) for state in (initial, without_arm)]


def _count(simulator: MujocoSimulator, initial: InitialState) -> list[list[int]]:
    simulator.reset(initial)
    images = [simulator.render(camera.name, "segmentation") for camera in FIXED]
    return [[int((image == SEGMENTS[name]).sum()) for name in _SEEN] for image in images]


def main() -> None:
    """Print and save the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="starts")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of the expert")
    parser.add_argument("--size", type=int, default=256, help="width and height, pixels")
    args = parser.parse_args()
    starts, margins = watch_starts(args.seeds, args.size), watch_episodes(args.episodes)
    results = {}
    for camera, seen in starts.items():
        hidden, least = seen.hidden.tolist(), seen.shares.min(axis=0)
        sizes = np.median(seen.pixels, axis=0)
        results[camera] = {
            "starts": args.seeds,
            "hidden": hidden,
            "least_share": dict(zip(_SEEN, least.tolist(), strict=True)),
            "median_size": dict(zip(_SEEN, sizes.tolist(), strict=True)),
            "episodes": args.episodes,
            "margin": margins[camera],
        }
        print(
            f"{camera}: {len(hidden)} of {args.seeds} starts hidden {hidden[:10]}; least visible "
            f"share of object {least[0]:.2f}, marker {least[1]:.2f}; median size at 96 x 96: "
            f"object {sizes[0] * 96**2:.0f}, marker {sizes[1] * 96**2:.0f} pixels; in "
            f"{args.episodes} episodes everything stays {margins[camera]:.2f} inside the border"
        )
    save("cameras", results)


if __name__ == "__main__":
    main()
