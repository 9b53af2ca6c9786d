"""Every option of the commands on this environment, named, bounded and explained once.

The command lines, the bridge's request model, worker processes, the stored provenance and the
benchmarks derive from these classes. To add an option, add a field; its place says who has it:

- `SceneOptions`: whoever makes an environment.
- `DemonstrationOptions`: what is demonstrated. The bridge's requests have them, and the dataset's
  provenance stores them.
- `DatasetOptions` and `CollectOptions`: how it is recorded, and how `collect.py` runs.
- `PolicyOptions`: what `pp-evaluate` measures, stored in its report.
- `EvaluateOptions`: how `pp-evaluate` runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import gymnasium as gym
from annotated_types import Ge, Interval, Le
from typing_extensions import Doc

import pp_env
from experts.action_noise import MAX_ACTION_NOISE
from experts.pick_place import MAX_NOISE_RAD, MAX_PATH_NOISE_RAD
from experts.reactive import JOINT_SPEED, MAX_JOINT_SPEED
from pp_collect.actions import EXPERT_CONTROL_MODES, ExpertControlMode
from pp_collect.robustness import ALL, FACTORS, choose_factors
from pp_collect.starts import START_KINDS, parse_start_mix
from pp_env.config import (
    CAMERAS,
    NAMED_CAMERAS,
    RENDER_PRESETS,
    RenderConfig,
    TimingConfig,
    choose_cameras,
)
from pp_env.control import CONTROL_MODES
from pp_env.env import OBS_TYPES
from pp_env.objects import YCB_OBJECTS
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, require_preset
from pp_recorder.command_line import (
    PATH_TEXT,
    DatasetFolder,
    Form,
    OptionError,
    Options,
    Pixels,
    Typed,
    flag,
    one_of,
    parse_location,
    parse_pixels,
    some_of,
    text,
)
from pp_recorder.dataset.keys import VideoFiles
from pp_recorder.dataset.video import CODECS

_spec = gym.spec(pp_env.ENV_ID)
assert _spec.max_episode_steps is not None
_MAX_STEPS: int = _spec.max_episode_steps
_STEP_LIMIT = f"an episode ends after so many; default: {_MAX_STEPS} at 30 Hz, as long at others"

PROBED_OBS_TYPE = "pixels_agent_pos"
_OF_EPISODES = (
    *("max_steps", "action_steps", "workers", "vary"),
    *("videos", "videos_of", "max_videos", "min_success"),
)

_CAMERA_NAMES = some_of([camera.name for camera in NAMED_CAMERAS])

AssetsRoot = Annotated[
    str | None,
    PATH_TEXT,
    Doc("folder of Isaac Sim's assets; default: ISAAC_ASSETS_ROOT"),
    Typed("DIR"),
]


@dataclass(frozen=True, kw_only=True)
class SceneOptions(Options):
    """The simulated scene."""

    fps: Annotated[int, Ge(1), Le(1000), Doc("control and camera rate, Hz")] = 30
    simulator: Annotated[str, one_of(sorted(SIMULATORS)), Doc("physics and images")] = "mujoco"
    grasp: Annotated[Literal["fixed_joint", "friction"], Doc("grasp mode")] = "fixed_joint"
    randomize: Annotated[
        str,
        one_of(RANDOMIZATION_PRESETS),
        Doc("how much light, table, cameras, physics, sensors and delays vary"),
    ] = "none"
    resolution: Annotated[Pixels, Doc("of images: 512, or 640x480")] = RenderConfig.resolution
    preset: Annotated[str, one_of(sorted(RENDER_PRESETS)), Doc("image quality")] = "default"
    cameras: Annotated[tuple[str, ...], _CAMERA_NAMES, Doc("which ones, in this order")] = tuple(
        camera.name for camera in CAMERAS
    )
    use_ycb: Annotated[bool, Doc("household objects of the YCB set, not the cube")] = False
    num_objects: Annotated[int, Ge(1), Le(1000), Doc("on the table: the target and others")] = 1
    object: Annotated[
        str | None, Doc("the only target, such as tomato_soup_can"), Typed("NAME")
    ] = None
    random_yaw: Annotated[bool, Doc("turn objects about the vertical")] = False
    ycb_meshes: Annotated[
        Path | None, Doc("MuJoCo: show them by the set's meshes"), Typed("DIR")
    ] = None
    ycb_assets: Annotated[bool, Doc("Isaac Sim: show them by its own files")] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_cameras()
        require_preset(self.simulator, self.preset)
        if self.object and not self.use_ycb and any(o.is_called(self.object) for o in YCB_OBJECTS):
            raise ValueError(f"--object {self.object} is of the YCB set; give --use-ycb, too")
        if not self.use_ycb and (self.ycb_meshes is not None or not self.ycb_assets):
            raise ValueError("--ycb-meshes and --no-ycb-assets are for --use-ycb; give that, too")

    def _require_cameras(self) -> None:
        if self.cameras is None:
            return
        try:
            choose_cameras(self.cameras)
        except ValueError as error:
            raise OptionError("cameras", str(error)) from None


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions(SceneOptions):
    """A scene, and how its simulator is started."""

    headless: Annotated[bool, Doc("without the simulator's window")] = True
    assets_root: AssetsRoot = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.assets_root and "assets_root" not in SIMULATORS[self.simulator].options:
            takers = [name for name, row in SIMULATORS.items() if "assets_root" in row.options]
            raise ValueError(
                f"--assets-root is for --simulator {', '.join(takers)}, got --simulator "
                f"{self.simulator}"
            )
        if not self.headless and not SIMULATORS[self.simulator].has_window:
            able = [name for name, row in SIMULATORS.items() if row.has_window]
            raise ValueError(
                f"--no-headless is for --simulator {', '.join(able)}, got --simulator "
                f"{self.simulator}, which has no window"
            )


_STARTS_OF = {"waypoints": ("home", "random"), "reactive": START_KINDS}
_OPTIONS_OF = {
    "waypoints": ("steps_per_segment", "path_noise_rad"),
    "reactive": ("joint_speed", "gripper"),
}
EXPERT_OPTIONS = ("expert", "noise_rad", *_OPTIONS_OF["waypoints"], *_OPTIONS_OF["reactive"])


@dataclass(frozen=True, kw_only=True)
class DemonstrationOptions(Options):
    """What is demonstrated."""

    seed: Annotated[int, Interval(ge=0, lt=2**63), Doc("episode k depends on this and k alone")] = (
        12345
    )
    first_attempt: Annotated[
        int, Interval(ge=0, lt=2**53), Doc("number of the first attempt, for parts")
    ] = 0
    expert: Annotated[
        Literal["waypoints", "reactive"],
        Doc("nine waypoints by the clock, or closed loop (docs/experts.md)"),
    ] = "waypoints"
    policy: Annotated[
        str | None,
        Doc("your own in place of an expert: module:callable (docs/record.md)"),
        Typed("POLICY"),
    ] = None
    max_steps: Annotated[
        int | None,
        Ge(1),
        Doc(f"of --policy: {_STEP_LIMIT}"),
        Typed("INT"),
    ] = None
    start_mix: Annotated[
        str,
        Doc("where episodes begin, such as home=0.4,random=0.3,anywhere=0.3"),
        Typed("MIX"),
    ] = "home"
    start_policy: Annotated[
        str | None,
        PATH_TEXT,
        Doc("drives up to the start of episodes of the kind policy"),
        Typed("CHECKPOINT"),
    ] = None
    action_noise: Annotated[
        float,
        Interval(ge=0, le=MAX_ACTION_NOISE),
        Doc("noise on executed actions, as a share of their motion"),
    ] = 0.0
    joint_speed: Annotated[
        float | None,
        Interval(gt=0, le=MAX_JOINT_SPEED),
        Doc(f"reactive: of the fastest joint, rad/s; default {JOINT_SPEED:g}"),
    ] = None
    gripper: Annotated[
        Literal["binary", "ramped"] | None,
        Doc("reactive: how the fingers are commanded; default binary"),
    ] = None
    control_mode: Annotated[ExpertControlMode, Doc("what recorded actions mean")] = "joint_pos"
    steps_per_segment: Annotated[
        int | None,
        Ge(1),
        Le(10_000),
        Doc("steps per waypoint, nine segments; default: one second"),
        Typed("INT"),
    ] = None
    noise_rad: Annotated[
        float, Interval(ge=0, le=MAX_NOISE_RAD), Doc("uniform noise on the waypoints' joints, rad")
    ] = 0.05
    path_noise_rad: Annotated[
        float,
        Interval(ge=0, le=MAX_PATH_NOISE_RAD),
        Doc("smooth noise on the path between waypoints, rad"),
        Typed(aliases=("--wander-rad",)),
    ] = 0.0
    keep: Annotated[Literal["success", "all"], Doc("which episodes to keep")] = "success"
    task: Annotated[
        str | None,
        Doc("text of every frame; default: what the environment says"),
        Typed("TEXT"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None and not self.task.strip():
            raise OptionError("task", "must not be empty")
        try:
            shares = self.start_shares
        except ValueError as error:
            raise OptionError("start_mix", str(error)) from None
        unable = sorted(set(shares) - set(_STARTS_OF[self.expert]))
        if unable and self.policy is None:
            able = [name for name, kinds in _STARTS_OF.items() if set(shares) <= set(kinds)]
            raise ValueError(
                f"--expert {self.expert} cannot start from {', '.join(unable)}; "
                f"try --expert {' or '.join(able)}"
            )
        if ("policy" in shares) != (self.start_policy is not None):
            raise ValueError(
                "--start-policy and the start kind policy need each other: "
                "--start-mix policy=0.5,home=0.5 --start-policy CHECKPOINT"
            )
        if self.policy is None:
            self._require_options_of_the_expert()
        else:
            self._require_no_options_of_experts()

    @property
    def start_shares(self) -> dict[str, float]:
        """Share of the episodes by start kind.

        Raises:
            ValueError: `start_mix` is malformed.
        """
        return parse_start_mix(self.start_mix)

    def _require_options_of_the_expert(self) -> None:
        if self.max_steps is not None:
            raise ValueError("--max-steps is for --policy; an expert knows when it is done")
        for expert, names in _OPTIONS_OF.items():
            given = self._given(names)
            if given and expert != self.expert:
                raise ValueError(f"{given} is for --expert {expert}, got --expert {self.expert}")

    def _require_no_options_of_experts(self) -> None:
        if given := self._given(EXPERT_OPTIONS):
            raise ValueError(f"{given} is for experts, got --policy {self.policy}; leave one out")

    def _given(self, names: Sequence[str]) -> str:
        """Return which of the options differ from their defaults, as they are typed."""
        defaults = {f.name: f.default for f in fields(DemonstrationOptions)}
        return ", ".join(flag(name) for name in names if getattr(self, name) != defaults[name])

    def segment_steps(self, fps: int) -> int | None:
        """Return the number of steps per waypoint at a control rate, Hz; None without waypoints."""
        if self.policy is not None or self.expert != "waypoints":
            return None
        return fps if self.steps_per_segment is None else self.steps_per_segment

    def policy_steps(self, fps: int) -> int:
        """Return the number of steps after which an episode of `policy` ends, at a rate in Hz."""
        return self.max_steps or _default_step_limit(fps)


def _default_step_limit(fps: int) -> int:
    """Return the number of steps at a rate in Hz that take as long as the environment's limit."""
    return round(_MAX_STEPS * fps / TimingConfig.control_hz)


@dataclass(frozen=True, kw_only=True)
class VideoOptions(Options):
    """How images are compressed."""

    codec: Annotated[str, one_of(sorted(CODECS)), Doc("video compression")] = "h264"


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(VideoOptions):
    """The dataset that is recorded."""

    num_episodes: Annotated[int, Ge(1), Le(1_000_000), Doc("episodes in the dataset")] = 50
    output: Annotated[
        Path | str,
        text(parse_location, "DIR|URL"),
        Doc("absent or empty folder, or one in a store: s3://bucket/path, gs://..."),
    ] = Path("datasets/pick_place")
    staging: Annotated[Path | None, Doc("for a store: where files come about"), Typed("DIR")] = None
    resume: Annotated[bool, Doc("go on with an interrupted collection")] = False
    video_files: Annotated[
        VideoFiles, Doc("of the complete dataset: many episodes in one, or one each")
    ] = "packed"
    no_cameras: Annotated[bool, Form.SWITCH, Doc("record no images")] = False
    render_after: Annotated[
        bool, Doc("run each attempt without images first, render only what is kept")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.output, str):
            object.__setattr__(self, "output", parse_location(self.output))
        if self.staging is not None and isinstance(self.output, Path):
            raise ValueError(f"--staging is for an --output with a URL, got {self.output}")

    @property
    def record_cameras(self) -> bool:
        """Whether images are recorded."""
        return not self.no_cameras


@dataclass(frozen=True, kw_only=True)
class SessionOptions(SimulatorOptions, DemonstrationOptions, DatasetOptions):
    """All that a `CollectionSession` needs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.render_after and not SIMULATORS[self.simulator].repeatable:
            able = [name for name, row in SIMULATORS.items() if row.repeatable]
            raise ValueError(
                f"--render-after needs a simulator that repeats itself: {', '.join(able)}"
            )
        if self.render_after and (self.keep == "all" or self.no_cameras):
            raise ValueError(
                "--render-after saves images of failures: not with --keep all or --no-cameras"
            )
        if self.render_after and self.policy is not None:
            raise ValueError(
                "--render-after runs attempts without images first, but --policy sees them; "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class CollectOptions(SessionOptions):
    """The options of `collect.py`."""

    workers: Annotated[
        int | None,
        Ge(1),
        Doc("processes; default one per processor, per GPU with Isaac Sim, two per GPU with warp"),
        Typed("INT"),
    ] = None
    num_envs: Annotated[
        int | None,
        Ge(1),
        Doc("with --simulator warp: attempts at once, in all processes; default 256 in each"),
        Typed("INT"),
    ] = None
    ray_address: Annotated[
        str | None,
        Doc("or on a Ray cluster: auto, or host:port of its head; needs [ray]"),
        Typed("ADDRESS"),
    ] = None
    gpu_share: Annotated[
        float | None,
        Interval(ge=0, le=1),
        Doc("of a GPU, for each attempt on the cluster; default 0, or 1 with Isaac Sim"),
        Typed("FLOAT"),
    ] = None
    status_file: Annotated[
        Path | None,
        Doc("JSON file that tells how the run goes, and how it ended"),
        Typed("FILE"),
    ] = None
    restart_every: Annotated[
        int | None,
        Ge(1),
        Doc("restart the process after so many episodes, each worker after so many attempts"),
        Typed("INT"),
    ] = None
    restart_above: Annotated[
        float | None, Doc("or when it holds more memory than this"), Typed("GB")
    ] = None
    streaming: Annotated[bool, Doc("show the cameras to browsers; needs [bridge]")] = False
    streaming_port: Annotated[
        int,
        Ge(1),
        Doc(
            "TCP port of the page, first UDP port of the images; or of the simulator's own "
            "livestream"
        ),
    ] = 49102
    streaming_host: Annotated[str, Doc("address of the page (docs/bridge.md)")] = "127.0.0.1"
    push_to_hub: Annotated[
        str | None,
        Doc("upload the complete dataset; needs [hub]"),
        Typed("USER/NAME"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_to_hub and not isinstance(self.output, Path):
            raise ValueError(
                "--push-to-hub uploads a folder, not what is in a store; copy it first"
            )
        self._require_what_a_cluster_has()
        self._require_together()
        self._require_streaming()
        if self.streams_page and self.no_cameras:
            raise ValueError("--streaming shows what the cameras record: not with --no-cameras")
        self._require_one_worker()

    @property
    def streams_page(self) -> bool:
        """Whether a page shows the cameras: not where the simulator has a livestream of its own."""
        return self.streaming and not SIMULATORS[self.simulator].has_livestream

    @property
    def livestream_port(self) -> int | None:
        """TCP port of the simulator's own livestream, or None."""
        has_one = self.streaming and SIMULATORS[self.simulator].has_livestream
        return self.streaming_port if has_one else None

    @property
    def single_worker_reason(self) -> str | None:
        """Return the option that allows only one worker, or None."""
        given = {"--no-headless": not self.headless, "--streaming": self.streaming}
        return next((option for option, is_given in given.items() if is_given), None)

    @property
    def needs_gpu(self) -> bool:
        """Whether each process should have a GPU of its own."""
        return SIMULATORS[self.simulator].process_memory is not None

    @property
    def attempt_gpu_share(self) -> float:
        """Share of a GPU that an attempt takes on a cluster."""
        return float(self.needs_gpu) if self.gpu_share is None else self.gpu_share

    def _require_what_a_cluster_has(self) -> None:
        if self.ray_address is None:
            if self.gpu_share:
                raise ValueError("--gpu-share is for --ray-address")
            return
        if self.needs_gpu and not self.attempt_gpu_share:
            raise ValueError(
                f"--simulator {self.simulator} needs a GPU: --gpu-share above 0, got 0; try 1"
            )
        if self.restart_every is not None or self.restart_above is not None:
            raise ValueError(
                "--restart-every and --restart-above are for processes of this machine, not for "
                "--ray-address"
            )

    def _require_together(self) -> None:
        """Raise an error if attempts are to be made at once where they cannot, or in a cluster."""
        able = [name for name, row in SIMULATORS.items() if row.steps_together]
        if self.num_envs is not None and self.simulator not in able:
            raise ValueError(
                f"--num-envs is for --simulator {', '.join(able)}, got --simulator "
                f"{self.simulator}; its attempts are made at once by --workers"
            )
        if self.simulator not in able:
            return
        if self.ray_address is not None:
            raise ValueError(f"--simulator {self.simulator} is for this machine, not --ray-address")
        if (self.policy or self.start_policy) and not self.no_cameras:
            raise ValueError(
                f"--simulator {self.simulator} renders after the episodes, so --policy and "
                "--start-policy see no images; give --no-cameras, or take --simulator mujoco"
            )

    @property
    def steps_together(self) -> bool:
        """Whether each process makes many attempts at once."""
        return SIMULATORS[self.simulator].steps_together and self.single_worker_reason is None

    def _require_streaming(self) -> None:
        """Raise an error if the page has an address, but is not shown."""
        names = ("streaming_port", "streaming_host")
        given = [name for name in names if getattr(self, name) != getattr(CollectOptions, name)]
        if given and not self.streaming:
            options = " and ".join(map(flag, given))
            raise ValueError(f"{options}: only for --streaming; give that, too")

    def _require_one_worker(self) -> None:
        reason = self.single_worker_reason
        if reason is None:
            return
        if self.ray_address is not None:
            raise ValueError(f"{reason} is for one worker, not for --ray-address")
        if self.workers not in (None, 1):
            raise ValueError(f"{reason} is for one worker, got --workers {self.workers}")


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(SceneOptions):
    """A policy, and on what it is measured."""

    policy: Annotated[
        str,
        PATH_TEXT,
        Doc("expert, reactive, random, module:callable, or the folder of a LeRobot checkpoint"),
        Typed("POLICY"),
    ]
    num_episodes: Annotated[int, Ge(1), Doc("how many")] = 50
    seed: Annotated[int, Ge(0), Doc("episode k depends on this and k alone")] = 0
    max_steps: Annotated[
        int | None,
        Ge(1),
        Doc(_STEP_LIMIT),
        Typed("INT"),
    ] = None
    action_steps: Annotated[
        int | None,
        Ge(1),
        Doc("of a checkpoint's plan, executed before the next; default: as it says"),
        Typed("INT"),
    ] = None
    obs_type: Annotated[
        str | None, one_of(OBS_TYPES), Doc("default: state, or what the checkpoint needs")
    ] = None
    control_mode: Annotated[
        str | None,
        one_of(CONTROL_MODES),
        Doc("what actions mean; default: joint_pos, or what fits the checkpoint"),
    ] = None
    resolution: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        int | tuple[int, int] | None,
        text(parse_pixels, "PIXELS"),
        Doc(f"of images; default: what the checkpoint needs, or {RenderConfig.resolution}"),
    ] = None
    cameras: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        tuple[str, ...] | None,
        _CAMERA_NAMES,
        Doc(f"default: what the checkpoint needs, or {' '.join(SceneOptions.cameras)}"),
    ] = None

    vary: Annotated[
        tuple[str, ...] | None,
        some_of([ALL, *FACTORS]),
        Doc(
            "measure again with each of these varied, one at a time: "
            + "; ".join(f"{name}: {factor.meaning}" for name, factor in FACTORS.items())
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_factors()
        is_expert = self.policy in ("expert", "reactive")
        if is_expert and self.control_mode not in (None, *EXPERT_CONTROL_MODES):
            raise ValueError(
                f"the expert's actions are for --control-mode {' or '.join(EXPERT_CONTROL_MODES)}, "
                f"got {self.control_mode}"
            )

    def _require_factors(self) -> None:
        if self.vary is None:
            return
        try:
            choose_factors(self.vary)
        except ValueError as error:
            raise OptionError("vary", str(error)) from None

    @property
    def factors(self) -> tuple[str, ...]:
        """What varies, one at a time."""
        return () if self.vary is None else choose_factors(self.vary)

    @property
    def step_limit(self) -> int:
        """Number of steps after which an episode ends: by default, the same time at every rate."""
        return self.max_steps or _default_step_limit(self.fps)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(PolicyOptions):
    """The options of `pp-evaluate`."""

    workers: Annotated[int, Ge(1), Doc("processes; with mujoco the numbers are the same")] = 1
    videos: Annotated[
        Path | None,
        Doc("write videos, the cameras side by side"),
        Typed("DIR"),
    ] = None
    videos_of: Annotated[Literal["failures", "all", "none"], Doc("which ones")] = "failures"
    max_videos: Annotated[int, Ge(1), Doc("the first so many of them")] = 10
    json: Annotated[Path | None, Doc("write everything, episode by episode"), Typed("FILE")] = None
    min_success: Annotated[
        float | None,
        Interval(ge=0, le=1),
        Doc("exit with 1 if a rate, from 0 to 1, is below"),
        Typed("RATE"),
    ] = None
    probe: Annotated[
        bool,
        Form.SWITCH,
        Doc("no episodes: does its plan follow the pictures, or the arm's own state?"),
    ] = False
    min_pictures_share: Annotated[
        float | None,
        Interval(ge=0, le=1),
        Doc("of --probe: exit with 1 if the pictures' share, from 0 to 1, is below"),
        Typed("SHARE"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probe:
            self._require_what_a_probe_needs()
        elif self.min_pictures_share is not None:
            raise ValueError("--min-pictures-share is for --probe; give that, too")
        self._require_videos()

    def _require_videos(self) -> None:
        """Raise an error if it is said which videos to write, but not where."""
        names = ("videos_of", "max_videos")
        given = [name for name in names if getattr(self, name) != getattr(EvaluateOptions, name)]
        if given and self.videos is None:
            options = " and ".join(map(flag, given))
            raise ValueError(f"{options}: only for --videos DIR; give that, too")

    def _require_what_a_probe_needs(self) -> None:
        if self.policy in ("expert", "reactive", "random"):
            raise ValueError(
                "--probe asks a policy that sees pictures for its plan, got --policy "
                f"{self.policy}; try the folder of a LeRobot checkpoint, or module:callable"
            )
        if self.obs_type not in (None, PROBED_OBS_TYPE):
            raise ValueError(
                f"--probe swaps pictures and state: --obs-type {PROBED_OBS_TYPE}, got "
                f"{self.obs_type}"
            )
        if self.num_episodes < 2:
            raise ValueError(
                f"--probe compares scenes: --num-episodes 2 or more, got {self.num_episodes}"
            )
        defaults = {f.name: f.default for f in fields(EvaluateOptions)}
        given = [name for name in _OF_EPISODES if getattr(self, name) != defaults[name]]
        if given:
            names = ", ".join(map(flag, given))
            raise ValueError(f"--probe runs no episodes of the policy; leave out {names}")


@dataclass(frozen=True, kw_only=True)
class RecordedOptions(Options):
    """Which recorded episodes to run again."""

    dataset: Annotated[DatasetFolder, Doc("the recorded dataset")]
    episode: Annotated[int | None, Doc("which one; default: all"), Typed("INT")] = None
    json: Annotated[bool, Doc("print the result as JSON")] = False
    trust: Annotated[
        bool, Doc("run the Python code that the dataset names: a policy, an environment")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(RecordedOptions):
    """The options of `pp-reproduce`."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(RecordedOptions):
    """The options of `pp-replay`."""

    render: Annotated[
        Path | None, text(parse_location, "OUT"), Doc("write a dataset with new images")
    ] = None
    resolution: Annotated[
        int | tuple[int, int] | None,
        text(parse_pixels, "PIXELS"),
        Doc("of the new images; default: as recorded"),
    ] = None
    preset: Annotated[
        str | None,
        one_of(sorted(RENDER_PRESETS)),
        Doc("of the new images; default: as recorded"),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.render is None and (self.resolution or self.preset):
            raise ValueError("--resolution and --preset need --render OUT")
