"""The names in a dataset, each written once: columns, files, and metadata."""

FORMAT_VERSION = "v3.0"
CHUNK_SIZE = 1000  # episodes per folder, in what we write

# Columns, which LeRobot calls features.
STATE = "observation.state"
ACTION = "action"
IMAGE_PREFIX = "observation.images."
REWARD = "next.reward"
DONE = "next.done"
SUCCESS = "next.success"
TIMESTAMP = "timestamp"
FRAME_INDEX = "frame_index"
EPISODE_INDEX = "episode_index"
INDEX = "index"
TASK_INDEX = "task_index"

# Files, relative to the dataset's directory.
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
COLLECTION_PATH = "meta/collection.json"
TASKS_PATH = "meta/tasks.parquet"
TASKS_JSONL_PATH = "meta/tasks.jsonl"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

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
# Provenance that may differ between the parts of one dataset.
MAY_DIFFER_BETWEEN_PARTS = (*MAY_DIFFER_ON_RESUME, "seed", "first_attempt", "task", "object")
