"""The columns of a dataset, which LeRobot calls features, and the function that fills them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pp_recorder.dataset import keys
from pp_recorder.dataset.video import CODECS, PIXEL_FORMAT
from pp_recorder.rollout import Episode, Step

# What others call the same: encoders in place of codecs, and an entry of lerobot 0.6.
_CODEC_NAMES = {
    **{codec.encoder: codec.name for codec in CODECS.values()},
    **{"libaom-av1": "av1", "libx265": "hevc", "h264_nvenc": "h264", "hevc_nvenc": "hevc"},
}
_INFO_NAMES = {"is_depth_map": "video.is_depth_map"}

_MIN_SIDE = 4  # pixels of a picture
NOT_NUMBERS = ("video", "image", "string", "language")  # dtypes that LeRobot knows beside them


@dataclass(frozen=True)
class Feature:
    """A column of the dataset.

    Attributes:
        dtype: "float32", "int64", "bool" or "video".
        shape: (n,) for numbers, (H, W, 3) for images.
        names: One per number, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Feature":
        """Return the feature that an entry of `info.json` declares."""
        names = entry.get("names")
        names = tuple(map(str, names)) if isinstance(names, list) else None
        return cls(entry["dtype"], tuple(entry["shape"]), names)

    def to_json(self, fps: int, codec: str) -> dict[str, Any]:
        """Return the feature's entry in `info.json`."""
        names = list(self.names) if self.names else None
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        if self.dtype == "video":
            entry["info"] = {
                "video.height": self.shape[0],
                "video.width": self.shape[1],
                "video.channels": self.shape[2],
                "video.codec": CODECS[codec].name,
                "video.pix_fmt": PIXEL_FORMAT,
                "video.fps": fps,
                "video.is_depth_map": False,
                "has_audio": False,
                **{f"video.{key}": value for key, value in CODECS[codec].settings.items()},
            }
        return entry


BOOKKEEPING = {
    keys.TIMESTAMP: Feature("float32", (1,)),
    keys.FRAME_INDEX: Feature("int64", (1,)),
    keys.EPISODE_INDEX: Feature("int64", (1,)),
    keys.INDEX: Feature("int64", (1,)),
    keys.TASK_INDEX: Feature("int64", (1,)),
}
OUTCOME = {
    keys.REWARD: Feature("float32", (1,)),
    keys.DONE: Feature("bool", (1,)),
    keys.SUCCESS: Feature("bool", (1,)),
}


def image_feature(height: int, width: int) -> Feature:
    """Return the feature of a camera with images of this size in pixels."""
    return Feature("video", (height, width, 3), ("height", "width", "channels"))


@dataclass(frozen=True)
class DatasetSchema:
    """The contents of a dataset.

    Attributes:
        features: The columns that `row` fills, by name.
        row: Function from a step to the values of those columns: arrays of the features' shapes.
        fps: Frames per second: the environment's control rate.
        task: The language instruction: one text, or a function of an episode's start `info`.
        robot_type: For `info.json`.
        collection: Provenance, stored in `meta/collection.json`; None if nothing is known.
        describe: Function from an episode to its extra columns of `meta/episodes`; always the
            same ones.
        subtasks: Texts that the column `subtask_index` counts, if there is one.
        codec: A name in `pp_recorder.dataset.video.CODECS`.
        needed: Columns from `describe` without which a collection cannot be continued.
        info: The `info.json` of datasets that are joined; it declares the features, in its order.

    Raises:
        ValueError: The codec is unknown, or pictures have a size that cannot be encoded.
    """

    features: dict[str, Feature]
    row: Callable[[Step], dict[str, np.ndarray]]
    fps: int
    task: str | Callable[[dict[str, Any]], str]
    robot_type: str
    collection: dict[str, Any] | None
    describe: Callable[[Episode], dict[str, Any]] = lambda episode: {}
    subtasks: tuple[str, ...] = ()
    codec: str = "h264"
    needed: tuple[str, ...] = ()
    info: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec must be one of {sorted(CODECS)}, got {self.codec!r}")
        for key in [key for key, feature in self.features.items() if feature.dtype == "video"]:
            height, width = self.features[key].shape[:2]
            if min(height, width) < _MIN_SIDE or height % 2 or width % 2:  # colours have half
                raise ValueError(
                    f"{key} has pictures of {width} x {height}; both sides must be even, at "
                    f"least {_MIN_SIDE}. gymnasium.wrappers.ResizeObservation or, for what is "
                    "rendered, a subclass of gymnasium.Wrapper can change them"
                )

    def task_of(self, start_info: dict[str, Any]) -> str:
        """Return the instruction of an episode that started with this `info`."""
        return self.task(start_info) if callable(self.task) else self.task

    @property
    def cameras(self) -> list[str]:
        """Return the names of the features that are videos."""
        return [key for key, feature in self.all_features.items() if feature.dtype == "video"]

    @property
    def all_features(self) -> dict[str, Feature]:
        """Return all columns of the dataset, in their order."""
        if self.info is not None:
            return {key: Feature.from_json(f) for key, f in self.info["features"].items()}
        return {**self.features, **OUTCOME, **BOOKKEEPING}


def feature_fault(key: str, feature: Any) -> str:
    """Return the problem of a feature's declaration in `info.json`, or ""."""
    if not isinstance(feature, dict):
        return f"feature {key} is declared as {feature!r}, expected a dictionary"
    if missing := sorted({"dtype", "shape"} - set(feature)):
        return f"feature {key} lacks {missing}"
    shape = feature["shape"]
    if not isinstance(feature["dtype"], str) or not isinstance(shape, list):
        return f"feature {key} has dtype {feature['dtype']!r} and shape {shape!r}"
    if not all(isinstance(n, int) and n > 0 for n in shape):
        return f"feature {key} has shape {shape}, expected positive integers"
    return ""


def is_count(value: Any) -> bool:
    """Return True for a whole number that a column can hold, from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_vector(feature: dict[str, Any]) -> bool:
    """Return True if `info.json` declares a feature as numbers in one dimension."""
    try:
        is_number = np.dtype(feature["dtype"]).kind in "biuf"
    except TypeError:
        return False
    return is_number and len(feature["shape"]) == 1


def canonical_feature(feature: dict[str, Any]) -> dict[str, Any]:
    """Return a feature's declaration as we write it, whichever program has written it."""
    details, names = feature.get("info"), feature.get("names")
    if feature["dtype"] != "video" or not isinstance(details, dict):
        return feature
    if isinstance(names, list):
        names = ["channels" if name == "channel" else name for name in names]
    renamed = {_INFO_NAMES.get(key, key): value for key, value in details.items()}
    if (codec := renamed.get("video.codec")) in _CODEC_NAMES:
        renamed["video.codec"] = _CODEC_NAMES[codec]
    return {**feature, "names": names, "info": renamed}
