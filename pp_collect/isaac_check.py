"""A self-test of the Isaac Sim backend, for whoever has the hardware.

Runs every question that could not be answered without Isaac Sim, prints a table, and writes it as
JSON beside pictures to look at. Example:

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
from pp_env import kinematics, panda, rotation, task
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig, RenderConfig
from pp_env.env import PickPlaceEnv
from pp_env.layout import OBSERVATION
from pp_env.objects import YCB_OBJECTS
from pp_env.sim import default_timing, shutdown_app
from pp_env.sim.api import Command, InitialState, SimState
from pp_env.sim.isaac import app as isaac_app
from pp_env.sim.isaac.simulator import ATTACHMENTS, IsaacSimulator
from pp_recorder.checks.html_report import jpeg
from pp_recorder.command_line import Options, parse
from pp_recorder.rollout import Step, iterate_episode
from pp_recorder.status import resident_memory

HOME = np.array(HOME_JOINT_POS)
_EPISODES = 10  # of the expert, without a crash
_MEMORY_EPISODES = 20
_PERIODS = 30  # control periods of a short episode
_SHARE_CLIPPED = 0.02  # of a picture's pixels may be white or black


@dataclass
class Result:
    """One line of the table.

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


class Check:
    """The questions, in the order in which they are asked.

    Args:
        sim: The simulator.
        env: The environment around it.
        output: Folder for pictures.
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

    def run(self) -> list[Result]:
        """Asks everything; a question that raises is a failure, and the next one is asked."""
        results = []
        for ask in (
            self.versions, self.what_was_measured, self.gains, self.hand_follows_kinematics,
            self.arm_reaches_its_targets, self.object_rests, self.reset_repeats,
            self.attachments, self.fingers_stop_at_the_object, self.held_object_stays,
            self.pictures_are_exposed, self.wrist_camera_follows, self.pictures_after_reset,
            self.expert_succeeds, self.ycb_files, self.throughput, self.memory,
        ):  # fmt: skip
            try:
                result = ask()
            except Exception as error:
                traceback.print_exc()
                result = Result(ask.__name__.replace("_", " "), False, f"{error}", "no error")
            results.append(result)
            print(_line(result), flush=True)
        return results

    def versions(self) -> Result:
        """Isaac Sim and numpy: the latter must be Kit's own."""
        found = f"Isaac Sim {isaac_app.version()[2]}, numpy {np.__version__}"
        return Result("versions", None, found, "numpy 1.26 in 4.5")

    def what_was_measured(self) -> Result:
        """What the simulator has found out when it started."""
        found = {k: v for k, v in self._sim.description.items() if k != "gains"}
        return Result("measured at start", found["renders_per_frame"] <= 4, json.dumps(found))

    def gains(self) -> Result:
        """Whether the servos have the gains that were set."""
        gains = self._sim.description["gains"]
        stiffness, damping = self._sim.read_gains()
        equal = np.allclose(stiffness, gains["stiffness"], rtol=1e-3) and np.allclose(
            damping, gains["damping"], rtol=1e-3
        )
        asset = f"asset's own: {gains['stiffness_of_asset']}, {gains['damping_of_asset']}"
        return Result("gains are those that were set", equal, asset)

    def hand_follows_kinematics(self) -> Result:
        """Whether physics puts `panda_hand` where the published kinematics do."""
        self._start()
        worst = 0.0
        for target in (HOME, HOME + 0.2, HOME - [0.3, 0.1, 0.2, 0, 0.3, 0, 0.4]):
            state = self._steps(Command(target, panda.FINGER_OPEN), _PERIODS)
            position = kinematics.forward(state.joint_pos)[0]
            worst = max(worst, float(np.linalg.norm(state.eef.position - position)))
        return Result("panda_hand is where kinematics say", worst < 1e-3, _mm(worst), "< 1 mm")

    def arm_reaches_its_targets(self) -> Result:
        """How far the arm is from a target after standing for a second."""
        self._start()
        target = HOME + np.array([0.3, -0.1, 0.2, 0.2, -0.2, 0.1, 0.2])
        state = self._steps(Command(target, 0.01), _PERIODS)
        error = float(np.abs(state.joint_pos - target).max())
        return Result("arm reaches its targets", error < 0.01, f"{error:.4f} rad", "< 0.01 rad")

    def object_rests(self) -> Result:
        """Whether the object lies still on the table: contact offsets are a guess."""
        initial = self._start()
        state = self._steps(Command(HOME, panda.FINGER_OPEN), 2 * _PERIODS)
        drift = float(np.linalg.norm(state.object.position - initial.object.position))
        speed = float(np.linalg.norm(state.object_vel))
        found = f"moved {_mm(drift)}, {speed:.4f} m/s"
        return Result("object rests", drift < 1e-3 and speed < 0.01, found, "< 1 mm, < 0.01 m/s")

    def reset_repeats(self) -> Result:
        """Whether the same start and commands give the same states, whatever went before."""
        first = self._short_episode()
        self._start(pick=(0.6, -0.2))
        self._steps(Command(HOME - 0.2, 0.02), 5)
        difference = float(np.abs(self._short_episode() - first).max())
        return Result("reset repeats", difference == 0.0, f"{difference:.2e}", "0")

    def attachments(self) -> Result:
        """Which ways of holding the object work, with the joints readable before and after."""
        chosen = self._sim.description["attachment"]
        found = self._sim.working_attachments()
        return Result("ways to hold the object", chosen in found, f"{found} of {ATTACHMENTS}")

    def fingers_stop_at_the_object(self) -> Result:
        """Where the fingers stop when the expert closes them on the object."""
        fingers, half = self._lift()[0]["gripper_pos"], self._config.object.size[1] / 2
        ok = bool((abs(fingers - half) < 3e-3).all())
        found = f"{np.round(fingers, 4).tolist()} m"
        return Result("fingers stop at the object", ok, found, f"{half} m")

    def held_object_stays(self) -> Result:
        """How far a held object moves in the hand from the grasp to the end of the carrying."""
        (_, begin), (_, end) = self._lift(), self._lift("MOVE_TO_PLACE")
        drift = float(np.linalg.norm(end - begin))
        return Result("held object stays in the hand", drift < 2e-3, _mm(drift), "< 2 mm")

    def pictures_are_exposed(self) -> Result:
        """Whether pictures are neither black nor white; they are kept to be looked at."""
        self._start()
        found, ok = [], True
        for name, picture in self._pictures("start").items():
            white, black = float((picture >= 254).mean()), float((picture <= 1).mean())
            ok = ok and picture.std() > 5 and white < _SHARE_CLIPPED and black < _SHARE_CLIPPED
            found.append(f"{name}: mean {picture.mean():.0f}, white {white:.1%}, black {black:.1%}")
        return Result("pictures are exposed", bool(ok), "; ".join(found), "see usd_lights")

    def wrist_camera_follows(self) -> Result:
        """Whether the wrist camera moves with the hand."""
        self._start(pick=(0.42, 0.0))
        before = self._pictures("home")["cam_wrist"].astype(float)
        self._steps(Command(HOME + [0.5, 0, 0, 0, 0, 0, 0], panda.FINGER_OPEN), _PERIODS)
        after = self._pictures("turned")["cam_wrist"].astype(float)
        changed = float((np.abs(after - before).max(axis=2) > 30).mean())
        return Result("wrist camera follows the hand", changed > 0.01, f"{changed:.1%} changed")

    def pictures_after_reset(self) -> Result:
        """Whether the first picture of an episode shows anything of the one before."""
        self._start(pick=(0.5, -0.2))
        fresh = self._pictures("fresh")["cam_high"].astype(float)
        self._start(pick=(0.6, 0.2))
        self._pictures("other")
        self._start(pick=(0.5, -0.2))
        again = self._pictures("again")["cam_high"].astype(float)
        differing = float((np.abs(again - fresh).max(axis=2) > 40).mean())
        return Result("no ghost after a reset", differing < 0.005, f"{differing:.2%}", "< 0.5 %")

    def expert_succeeds(self) -> Result:
        """Whether the expert's episodes run without a crash, and succeed."""
        successes = 0
        for seed in range(_EPISODES):
            last = self._expert_steps(seed)[-1]
            successes += last.success
        found = f"{successes} of {_EPISODES}"
        return Result("expert succeeds", successes == _EPISODES, found, f"{_EPISODES}")

    def ycb_files(self) -> Result:
        """Which of the YCB objects exist with physics, for whoever uses them."""
        native = import_module("isaacsim.storage.native")
        found = []
        for folder in ("Axis_Aligned", "Axis_Aligned_Physics"):
            url = isaac_app.asset_url(self._assets_root, f"/Isaac/Props/YCB/{folder}")
            names = [o.name for o in YCB_OBJECTS if _is_file(native, f"{url}/{o.name}.usd")]
            found.append(f"{folder}: {names}")
        return Result("YCB files", None, "; ".join(found))

    def throughput(self) -> Result:
        """Control periods per second, without and with both pictures."""
        self._start()
        rates = []
        for draw in (False, True):
            begin = time.perf_counter()
            for _ in range(_PERIODS):
                self._sim.step(Command(HOME, panda.FINGER_OPEN))
                if draw:
                    for camera in self._config.cameras:
                        self._sim.render(camera.name)
            rates.append(_PERIODS / (time.perf_counter() - begin))
        return Result("steps/s without and with pictures", None, f"{rates[0]:.0f}, {rates[1]:.1f}")

    def memory(self) -> Result:
        """Memory and GPU memory over episodes: growth is what `--restart-every` is for."""
        used = []
        for k in range(_MEMORY_EPISODES):
            self._start(pick=(0.45 + 0.01 * (k % 10), 0.1))
            self._steps(Command(HOME + 0.1, 0.0), 5)
            for camera in self._config.cameras:
                self._sim.render(camera.name)
            used.append(((resident_memory() or 0) // 10**6, _gpu_mb()))
        growth = used[-1][0] - used[_MEMORY_EPISODES // 2 - 1][0]
        found = f"{used[0]} to {used[-1]} MB (process, GPU)"
        return Result(f"memory over {len(used)} episodes", growth < 200, found, "< 200 MB more")

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
        """The last observation of a phase of the expert, and the object in the hand's frame, m."""
        last = [step for step in self._expert_steps(seed=0) if step.phase == phase][-1]
        if not last.info["is_grasped"]:
            raise isaac_app.IsaacSimError(f"the expert does not hold the object at {phase}")
        seen = OBSERVATION.unpack(last.observation)
        offset = last.info["object_pos"] - seen["eef_pos"]
        return seen, rotation.unrotate(seen["eef_quat"], offset)

    def _expert_steps(self, seed: int) -> list[Step]:
        expert = PickPlaceExpert()
        return list(iterate_episode(self._env, expert, [], seed, seed, expert.num_steps))

    def _pictures(self, label: str) -> dict[str, np.ndarray]:
        found = {c.name: self._sim.render(c.name) for c in self._config.cameras}
        for name, picture in found.items():
            (self._output / f"{label}_{name}.jpg").write_bytes(jpeg(picture))
        return found


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """The options of the self-test."""

    output: Annotated[Path, Doc("folder for table and images"), tyro.conf.arg(metavar="DIR")] = (
        Path("isaac_check")
    )
    assets_root: Annotated[
        str | None,
        Doc("folder of Isaac Sim's assets; default: ISAAC_ASSETS_ROOT"),
        tyro.conf.arg(metavar="DIR"),
    ] = None
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
    """Starts Isaac Sim, asks everything and reports; returns the exit status."""
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
        results = Check(sim, env, options.output, root).run()
        report = {"simulator": sim.description, "results": [vars(r) for r in results]}
    finally:
        env.close()
    (options.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    failed = [r.question for r in results if r.passed is False]
    print(f"{len(results) - len(failed)} of {len(results)} passed; {options.output}/report.json")
    return 1 if failed else 0


def _line(result: Result) -> str:
    mark = {True: "pass", False: "FAIL", None: "info"}[result.passed]
    needed = f"   (needed: {result.needed})" if result.needed else ""
    return f"{mark}  {result.question:38} {result.found}{needed}"


def _is_file(native: Any, url: str) -> bool:
    """Isaac's own test raises where there is no such file."""
    try:
        return bool(native.is_file(url))
    except Exception:
        return False


def _mm(metres: float) -> str:
    return f"{1000 * metres:.2f} mm"


def _gpu_mb() -> int:
    """Memory in use on the first GPU; 0 if the driver does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return 0
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    sys.exit(main())
