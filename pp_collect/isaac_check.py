"""A self-test of the Isaac Sim backend, for whoever has the hardware.

Runs every question that could not be answered without Isaac Sim, prints a table, and writes it as
JSON beside images to look at. Example:

    ./python.sh -m pp_collect.isaac_check --output isaac_check
"""

import json
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from annotated_types import Ge
from typing_extensions import Doc

from experts.pick_place import PickPlaceExpert
from pp_collect.options import AssetsRoot
from pp_env import kinematics, panda, rotation, task
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig, RenderConfig
from pp_env.env import PickPlaceEnv
from pp_env.layout import OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.sim import default_timing, shutdown_app
from pp_env.sim.api import Command, InitialState, SimState
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.simulator import ATTACHMENTS, IsaacSimulator
from pp_recorder.command_line import Options, parse
from pp_recorder.dataset.video import encode_jpeg
from pp_recorder.rollout import Step, iterate_episode
from pp_recorder.status import resident_memory

HOME = np.array(HOME_JOINT_POS)
_EPISODES = 10  # of the expert, without a crash
_MEMORY_EPISODES = 20
_PERIODS = 30  # control periods of a short episode
_SHARE_CLIPPED = 0.02  # of an image's pixels may be white or black


@dataclass
class Answer:
    """A line of the table: a question and its answer.

    Attributes:
        question: What was asked.
        passed: Whether the answer is what the backend needs; None is for information.
        found: The answer.
        needed: What the backend needs.
    """

    question: str
    passed: bool | None
    found: str
    needed: str = ""


class SelfTest:
    """The checks, in the order in which they run.

    Args:
        sim: The simulator.
        env: The environment around it.
        output: Folder for images.
        assets_root: Where Isaac Sim's assets are; None is its own setting.
    """

    def __init__(
        self, sim: IsaacSimulator, env: PickPlaceEnv, output: Path, assets_root: str | None
    ) -> None:
        self._sim = sim
        self._env = env
        self._config = env.config
        self._output = output
        self._assets_root = assets_root

    def run(self) -> list[Answer]:
        """Run every check; one that raises has failed, and the next one runs."""
        results = []
        for check in (
            self.versions, self.startup_measurements, self.gains, self.hand_follows_kinematics,
            self.arm_reaches_its_targets, self.object_rests, self.reset_repeats,
            self.attachments, self.fingers_stop_at_the_object, self.held_object_stays,
            self.images_are_exposed, self.wrist_camera_follows, self.images_after_reset,
            self.expert_succeeds, self.ycb_files, self.throughput, self.memory,
        ):  # fmt: skip
            try:
                result = check()
            except Exception as error:
                traceback.print_exc()
                result = Answer(check.__name__.replace("_", " "), False, f"{error}", "no error")
            results.append(result)
            print(_line(result), flush=True)
        return results

    def versions(self) -> Answer:
        """Report the versions of Isaac Sim and numpy, which must be Kit's own."""
        found = f"Isaac Sim {isaac_app.version()[2]}, numpy {np.__version__}"
        return Answer("versions", None, found, "numpy 1.26 in 4.5")

    def startup_measurements(self) -> Answer:
        """Report what the simulator measured when it started."""
        found = {k: v for k, v in self._sim.description.items() if k != "gains"}
        return Answer("measured at start", found["renders_per_frame"] <= 4, json.dumps(found))

    def gains(self) -> Answer:
        """Check that the servos have the gains that were set."""
        gains = self._sim.description["gains"]
        stiffness, damping = self._sim.read_gains()
        equal = np.allclose(stiffness, gains["stiffness"], rtol=1e-3) and np.allclose(
            damping, gains["damping"], rtol=1e-3
        )
        asset = f"asset's own: {gains['stiffness_of_asset']}, {gains['damping_of_asset']}"
        return Answer("gains are those that were set", equal, asset)

    def hand_follows_kinematics(self) -> Answer:
        """Check that physics puts `panda_hand` where the published kinematics do."""
        self._start()
        worst = 0.0
        for target in (HOME, HOME + 0.2, HOME - [0.3, 0.1, 0.2, 0, 0.3, 0, 0.4]):
            state = self._steps(Command(target, panda.FINGER_OPEN), _PERIODS)
            position = kinematics.forward(state.joint_pos)[0]
            worst = max(worst, float(np.linalg.norm(state.eef.position - position)))
        return Answer("panda_hand is where kinematics say", worst < 1e-3, _mm(worst), "< 1 mm")

    def arm_reaches_its_targets(self) -> Answer:
        """Measure how far the arm is from a target after standing for a second."""
        self._start()
        target = HOME + np.array([0.3, -0.1, 0.2, 0.2, -0.2, 0.1, 0.2])
        state = self._steps(Command(target, 0.01), _PERIODS)
        error = float(np.abs(state.joint_pos - target).max())
        return Answer("arm reaches its targets", error < 0.01, f"{error:.4f} rad", "< 0.01 rad")

    def object_rests(self) -> Answer:
        """Check that the object lies still on the table: contact offsets are a guess."""
        initial = self._start()
        state = self._steps(Command(HOME, panda.FINGER_OPEN), 2 * _PERIODS)
        drift = float(np.linalg.norm(state.object.position - initial.object.position))
        speed = float(np.linalg.norm(state.object_vel))
        found = f"moved {_mm(drift)}, {speed:.4f} m/s"
        return Answer("object rests", drift < 1e-3 and speed < 0.01, found, "< 1 mm, < 0.01 m/s")

    def reset_repeats(self) -> Answer:
        """Check that the same start and commands give the same states, whatever went before."""
        first = self._short_episode()
        self._start(pick=(0.6, -0.2))
        self._steps(Command(HOME - 0.2, 0.02), 5)
        difference = float(np.abs(self._short_episode() - first).max())
        return Answer("reset repeats", difference == 0.0, f"{difference:.2e}", "0")

    def attachments(self) -> Answer:
        """Try each way of holding the object, with the joints readable before and after."""
        chosen = self._sim.description["attachment"]
        found = self._sim.working_attachments()
        return Answer("ways to hold the object", chosen in found, f"{found} of {ATTACHMENTS}")

    def fingers_stop_at_the_object(self) -> Answer:
        """Measure where the fingers stop when the expert closes them on the object."""
        fingers, half = self._lift()[0]["gripper_pos"], self._config.object.size[1] / 2
        ok = bool((abs(fingers - half) < 3e-3).all())
        found = f"{np.round(fingers, 4).tolist()} m"
        return Answer("fingers stop at the object", ok, found, f"{half} m")

    def held_object_stays(self) -> Answer:
        """Measure how far a held object moves in the hand while it is carried."""
        (_, begin), (_, end) = self._lift(), self._lift("MOVE_TO_PLACE")
        drift = float(np.linalg.norm(end - begin))
        return Answer("held object stays in the hand", drift < 2e-3, _mm(drift), "< 2 mm")

    def images_are_exposed(self) -> Answer:
        """Check that images are neither black nor white, and keep them to be looked at."""
        self._start()
        found, ok = [], True
        for name, image in self._images("start").items():
            white, black = float((image >= 254).mean()), float((image <= 1).mean())
            ok = ok and image.std() > 5 and white < _SHARE_CLIPPED and black < _SHARE_CLIPPED
            found.append(f"{name}: mean {image.mean():.0f}, white {white:.1%}, black {black:.1%}")
        return Answer("images are exposed", bool(ok), "; ".join(found), "see usd_lights")

    def wrist_camera_follows(self) -> Answer:
        """Check that the wrist camera moves with the hand."""
        self._start(pick=(0.42, 0.0))
        before = self._images("home")["cam_wrist"].astype(float)
        self._steps(Command(HOME + [0.5, 0, 0, 0, 0, 0, 0], panda.FINGER_OPEN), _PERIODS)
        after = self._images("turned")["cam_wrist"].astype(float)
        changed = float((np.abs(after - before).max(axis=2) > 30).mean())
        return Answer("wrist camera follows the hand", changed > 0.01, f"{changed:.1%} changed")

    def images_after_reset(self) -> Answer:
        """Check that the first image of an episode shows nothing of the one before."""
        self._start(pick=(0.5, -0.2))
        fresh = self._images("fresh")["cam_high"].astype(float)
        self._start(pick=(0.6, 0.2))
        self._images("other")
        self._start(pick=(0.5, -0.2))
        again = self._images("again")["cam_high"].astype(float)
        differing = float((np.abs(again - fresh).max(axis=2) > 40).mean())
        return Answer("no ghost after a reset", differing < 0.005, f"{differing:.2%}", "< 0.5 %")

    def expert_succeeds(self) -> Answer:
        """Check that the expert's episodes run without a crash, and succeed."""
        successes = 0
        for seed in range(_EPISODES):
            last = self._expert_steps(seed)[-1]
            successes += last.success
        found = f"{successes} of {_EPISODES}"
        return Answer("expert succeeds", successes == _EPISODES, found, f"{_EPISODES}")

    def ycb_files(self) -> Answer:
        """List the YCB objects whose files exist with physics."""
        native = import_module("isaacsim.storage.native")
        found = []
        for folder in ("Axis_Aligned", "Axis_Aligned_Physics"):
            url = isaac_app.asset_url(self._assets_root, f"/Isaac/Props/YCB/{folder}")
            names = [o.name for o in YCB_OBJECTS if _is_file(native, f"{url}/{o.name}.usd")]
            found.append(f"{folder}: {names}")
        return Answer("YCB files", None, "; ".join(found))

    def throughput(self) -> Answer:
        """Measure control periods per second, without and with both images."""
        self._start()
        rates = []
        for render in (False, True):
            begin = time.perf_counter()
            for _ in range(_PERIODS):
                self._sim.step(Command(HOME, panda.FINGER_OPEN))
                if render:
                    for camera in self._config.cameras:
                        self._sim.render(camera.name)
            rates.append(_PERIODS / (time.perf_counter() - begin))
        return Answer("steps/s without and with images", None, f"{rates[0]:.0f}, {rates[1]:.1f}")

    def memory(self) -> Answer:
        """Measure memory and GPU memory over episodes; `--restart-every` is for growth."""
        used = []
        for k in range(_MEMORY_EPISODES):
            self._start(pick=(0.45 + 0.01 * (k % 10), 0.1))
            self._steps(Command(HOME + 0.1, 0.0), 5)
            for camera in self._config.cameras:
                self._sim.render(camera.name)
            used.append(((resident_memory() or 0) // 10**6, _gpu_mb()))
        growth = used[-1][0] - used[_MEMORY_EPISODES // 2 - 1][0]
        found = f"{used[0]} to {used[-1]} MB (process, GPU)"
        return Answer(f"memory over {len(used)} episodes", growth < 200, found, "< 200 MB more")

    def _start(self, pick: tuple[float, float] = (0.5, 0.1)) -> InitialState:
        begin = task.EpisodeStart(np.array(pick), np.array([0.45, 0.0]), np.array([0.8, 0.2, 0.2]))
        initial = task.initial_state(begin, self._config)
        self._sim.reset(initial)
        return initial

    def _steps(self, command: Command, periods: int) -> SimState:
        for _ in range(periods - 1):
            self._sim.step(command)
        return self._sim.step(command)

    def _short_episode(self) -> np.ndarray:
        self._start()
        state = self._steps(Command(HOME + 0.1, 0.0), 5)
        return np.concatenate([state.joint_pos, state.joint_vel, state.object.position])

    def _lift(self, phase: str = "LIFT") -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the last observation of a phase, and the object in the hand's frame, m."""
        last = [step for step in self._expert_steps(seed=0) if step.phase == phase][-1]
        if not last.info["is_grasped"]:
            raise isaac_app.IsaacSimError(f"the expert does not hold the object at {phase}")
        seen = OBSERVATION.unpack(last.observation)
        offset = last.info["object_pos"] - seen["eef_pos"]
        return seen, rotation.unrotate(seen["eef_quat"], offset)

    def _expert_steps(self, seed: int) -> list[Step]:
        expert = PickPlaceExpert()
        return list(iterate_episode(self._env, expert, [], seed, seed, expert.num_steps))

    def _images(self, label: str) -> dict[str, np.ndarray]:
        found = {c.name: self._sim.render(c.name) for c in self._config.cameras}
        for name, image in found.items():
            (self._output / f"{label}_{name}.jpg").write_bytes(encode_jpeg(image))
        return found


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """The options of the self-test."""

    output: Annotated[Path, Doc("folder for table and images"), tyro.conf.arg(metavar="DIR")] = (
        Path("isaac_check")
    )
    assets_root: AssetsRoot = None
    resolution: Annotated[int, Ge(1), Doc("width and height of images")] = 512


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse(
        CheckOptions,
        argv,
        prog="isaac_check",
        description="Check the Isaac Sim backend on real hardware.",
        example="./python.sh -m pp_collect.isaac_check --output isaac_check",
    )
    status = 1
    try:
        status = run(options)
    except (ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        shutdown_app(status)
    return status


def run(options: CheckOptions) -> int:
    """Start Isaac Sim, run every check and report; return the exit status."""
    options.output.mkdir(parents=True, exist_ok=True)
    config = PickPlaceConfig(
        timing=default_timing("isaacsim"), render=RenderConfig(resolution=options.resolution)
    )
    begin = time.perf_counter()
    root = isaac_app.resolve_assets_root(options.assets_root)
    sim = IsaacSimulator(config, assets_root=root)
    print(f"started in {time.perf_counter() - begin:.0f} s")
    env = PickPlaceEnv(simulator=lambda _: sim, config=config, terminate_on_success=False)
    try:
        results = SelfTest(sim, env, options.output, root).run()
        report = {"simulator": sim.description, "results": [vars(r) for r in results]}
    finally:
        env.close()
    (options.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    failed = [r.question for r in results if r.passed is False]
    print(f"{len(results) - len(failed)} of {len(results)} passed; {options.output}/report.json")
    return 1 if failed else 0


def _line(result: Answer) -> str:
    mark = {True: "pass", False: "FAIL", None: "info"}[result.passed]
    needed = f"   (needed: {result.needed})" if result.needed else ""
    return f"{mark}  {result.question:38} {result.found}{needed}"


def _is_file(native: Any, url: str) -> bool:
    """Return whether a file exists; Isaac's own test raises where there is none."""
    try:
        return bool(native.is_file(url))
    except Exception:
        return False


def _mm(metres: float) -> str:
    return f"{1000 * metres:.2f} mm"


def _gpu_mb() -> int:
    """Return the memory in use on the first GPU in MB; 0 if the driver does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return 0
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    sys.exit(main())
