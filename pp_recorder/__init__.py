"""Runs episodes of any policy in any Gymnasium environment and records them.

What is listed in `__all__` is the public interface (docs/record.md); each name is loaded when it is
first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pp_recorder.dataset.reader import Dataset as Dataset
    from pp_recorder.dataset.reader import DatasetError as DatasetError
    from pp_recorder.dataset.schema import DatasetSchema as DatasetSchema
    from pp_recorder.dataset.schema import Feature as Feature
    from pp_recorder.dataset.schema import image_feature as image_feature
    from pp_recorder.dataset.writer import LeRobotWriter as LeRobotWriter
    from pp_recorder.recording import record as record
    from pp_recorder.recording import replay as replay
    from pp_recorder.recording import schema_of as schema_of
    from pp_recorder.rollout import Episode as Episode
    from pp_recorder.rollout import EpisodeSink as EpisodeSink
    from pp_recorder.rollout import Policy as Policy
    from pp_recorder.rollout import Step as Step
    from pp_recorder.rollout import episode_seed as episode_seed
    from pp_recorder.rollout import run_episode as run_episode

_PLACES = {
    "pp_recorder.recording": ("record", "replay", "schema_of"),
    "pp_recorder.dataset.reader": ("Dataset", "DatasetError"),
    "pp_recorder.dataset.schema": ("DatasetSchema", "Feature", "image_feature"),
    "pp_recorder.dataset.writer": ("LeRobotWriter",),
    "pp_recorder.rollout": (
        "Episode", "EpisodeSink", "Policy", "Step", "episode_seed", "run_episode",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = list(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
