"""The names in a dataset, each written once: columns, files, and metadata."""

from typing import Literal

FORMAT_VERSION = "v3.0"
CHUNK_SIZE = 1000  # episodes per folder, in what we write
VIDEO_FILE_SIZE = 200  # about so many MiB at most, once videos are packed

# Columns, which LeRobot calls features.
STATE = "observation.state"
ACTION = "action"
IMAGE_PREFIX = "observation.images."
OUTCOME_PREFIX = "next."
REWARD = "next.reward"
DONE = "next.done"
SUCCESS = "next.success"
TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"
SUBTASK_INDEX = "subtask_index"
EXECUTED_ACTION = "executed_action"  # not "action...", which training code takes for an output

# Folders and files, relative to the dataset's directory.
META_FOLDER = "meta"
DATA_FOLDER = "data"
VIDEOS_FOLDER = "videos"
EPISODES_FOLDER = "meta/episodes"
CARD_PATH = "README.md"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
COLLECTION_PATH = "meta/collection.json"
TASKS_PATH = "meta/tasks.parquet"
SUBTASKS_PATH = "meta/subtasks.parquet"
TASKS_JSONL_PATH = "meta/tasks.jsonl"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
# Many episodes in one file, or one each, numbered like the episode.
VideoFiles = Literal["packed", "per-episode"]
VIDEO_PATHS: dict[VideoFiles, str] = {
    "packed": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    "per-episode": "videos/{video_key}/chunk-{chunk_index:03d}/episode_{file_index:05d}.mp4",
}
# Older versions gave the first kind of file a name of the second kind, too.
SECOND_NAMES = "episode_*.mp4"

# Columns of `meta/episodes` that LeRobot needs.
TASKS = "tasks"
LENGTH = "length"
FROM_INDEX = "dataset_from_index"
TO_INDEX = "dataset_to_index"
DATA_CHUNK_INDEX = "data/chunk_index"
DATA_FILE_INDEX = "data/file_index"
EPISODES_CHUNK_INDEX = "meta/episodes/chunk_index"
EPISODES_FILE_INDEX = "meta/episodes/file_index"
STATS_PREFIX = "stats/"

# Columns of `meta/episodes` that tell where an episode came from and how it went.
EPISODE_PREFIX = "episode/"
EPISODE_ATTEMPT = "episode/attempt"
EPISODE_SEED = "episode/seed"
EPISODE_SUCCESS = "episode/success"
EPISODE_FAILURE_REASON = "episode/failure_reason"
EPISODE_FAILURE_PHASE = "episode/failure_phase"
EPISODE_OBJECT = "episode/object"

# Provenance that may differ between a collection and its continuation: a warning, not a refusal.
MAY_DIFFER_ON_RESUME = ("versions", "machine", "simulator_details")
# Provenance that may differ between the parts of one dataset, in the order in which it is stored.
MAY_DIFFER_BETWEEN_PARTS = (
    *("seed", "first_attempt", *MAY_DIFFER_ON_RESUME, "task", "object"),
    # so that demonstrations that take over from a policy can join those that it learned from
    *("start_mix", "start_policy", "start_policy_sha256"),
)


def video_column(camera: str, field: str) -> str:
    """Return the column of `meta/episodes` with a fact about a camera's video.

    Args:
        camera: The feature.
        field: "chunk_index", "file_index", "from_timestamp" or "to_timestamp".
    """
    return f"{VIDEOS_FOLDER}/{camera}/{field}"


def stats_column(feature: str, statistic: str) -> str:
    """Return the column of `meta/episodes` with a statistic of a feature."""
    return f"{STATS_PREFIX}{feature}/{statistic}"


def is_needed_by_lerobot(name: str) -> bool:
    """Return True for the columns of `meta/episodes` that LeRobot writes and reads."""
    needed = {EPISODE_INDEX, TASKS, LENGTH, FROM_INDEX, TO_INDEX, DATA_CHUNK_INDEX, DATA_FILE_INDEX}
    needed |= {EPISODES_CHUNK_INDEX, EPISODES_FILE_INDEX}
    return name in needed or name.startswith((STATS_PREFIX, f"{VIDEOS_FOLDER}/"))
