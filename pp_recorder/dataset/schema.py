"""The columns of a dataset: what LeRobot calls features."""

from dataclasses import dataclass
from typing import Any

from pp_recorder.dataset.video import CODECS, PIXEL_FORMAT


@dataclass(frozen=True)
class Feature:
    """A column of the dataset.

    Attributes:
        dtype: "float32", "int64", "bool" or "video".
        shape: (n,) for numbers, (H, W, 3) for pictures.
        names: One per number, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def to_json(self, fps: int, codec: str) -> dict[str, Any]:
        """As `info.json` has it."""
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
            }
        return entry


BOOKKEEPING = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
OUTCOME = {
    "next.reward": Feature("float32", (1,)),
    "next.done": Feature("bool", (1,)),
    "next.success": Feature("bool", (1,)),
}


def picture(height: int, width: int) -> Feature:
    """The feature of a camera."""
    return Feature("video", (height, width, 3), ("height", "width", "channels"))
