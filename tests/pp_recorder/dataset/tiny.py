"""Tiny datasets, written without a simulator."""

import numpy as np

from pp_recorder.dataset.schema import DatasetSchema, Feature, image_feature
from pp_recorder.dataset.writer import LeRobotWriter
from pp_recorder.rollout import Episode, Step

EYES = ["observation.images.left", "observation.images.right"]
LENGTHS = [5, 1, 6, 4, 3, 5, 2]


def image(eye, episode, frame):
    rng = np.random.default_rng((eye, episode, frame))
    size = 3 if eye else 12  # so that the cameras' files do not have the same episodes
    return np.kron(rng.integers(0, 256, (size, size, 3)), np.ones((36 // size,) * 2 + (1,)))


def schema(codec="h264"):
    features = {"action": Feature("float32", (2,))}
    features |= {eye: image_feature(36, 36) for eye in EYES}
    collection = {"seed": 3, "codec": codec, "first_attempt": 0}
    return DatasetSchema(
        features, lambda step: dict(step.observation), 30, "tidy up", "robot", collection,
        codec=codec,
    )  # fmt: skip


def record(root, count, first=0, finalize=True, codec="h264", **options):
    """Record episodes up to `count`, and go on where there are some."""
    writer = LeRobotWriter(root, schema(codec), resume=True, **options)
    for k in range(writer.num_episodes + first, count):
        writer.begin(k)
        for i in range(LENGTHS[k]):
            views = {eye: image(e, k, i).astype(np.uint8) for e, eye in enumerate(EYES)}
            row = {"action": np.full(2, k + i / 100, np.float32), **views}
            step = Step(i, row, {}, np.zeros(2), np.zeros(2), 0, i == LENGTHS[k] - 1, False, "")
            writer.add(step)
        writer.end(Episode(k, k, LENGTHS[k], True, {}, ()))
    writer.finalize() if finalize else writer.close()
    return root


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
