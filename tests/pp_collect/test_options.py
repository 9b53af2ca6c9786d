"""One declaration gives the command line, the API, the provenance and the errors."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import collect
from pp_bridge.options import BridgeOptions
from pp_collect.factory import make_config
from pp_collect.options import (
    CollectOptions,
    DemonstrationOptions,
    EvaluateOptions,
    ReplayOptions,
    SceneOptions,
    SessionOptions,
)
from pp_collect.schema import stored_options
from pp_recorder.checks.cli import InspectOptions
from pp_recorder.command_line import (
    PATH_TEXT,
    OptionError,
    documentation,
    from_names,
    parse,
    select,
    version,
)
from pp_recorder.dataset.hub import PushOptions
from pp_recorder.dataset.merge import MergeOptions
from tests import ROOT

DUMMY = '    dummy: Annotated[int, Ge(0), Doc("what the test adds")] = 7\n'
CLASSES = [CollectOptions, EvaluateOptions]


def parse_collect(*words: str) -> CollectOptions:
    return parse(CollectOptions, words, prog="collect.py", description="", example="")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with one more option, which is one line in one file."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pp_env", "experts", "pp_recorder", "pp_collect", "pp_bridge"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "collect.py", copy)
    options = copy / "pp_collect/options.py"
    head = '    """What is demonstrated."""\n\n'
    text = options.read_text()
    assert text.count(head) == 1
    options.write_text(text.replace(head, head + DUMMY))
    return copy


def run(tree: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_option_is_in_the_help(tree):
    text = run(tree, "collect.py", "--help")
    assert "--dummy" in text
    assert "what the test adds" in text


def test_a_new_option_is_in_the_api(tree):
    pytest.importorskip("pydantic")
    program = (
        "import json; from pp_bridge.messages import StartRequest; "
        "print(json.dumps(StartRequest.model_json_schema()['properties']['dummy']))"
    )
    found = json.loads(run(tree, "-c", program))
    assert found["default"] == 7
    assert found["minimum"] == 0
    assert found["description"] == "what the test adds"


def test_a_new_option_is_in_the_provenance(tree, tmp_path):
    pytest.importorskip("mujoco")
    words = ["--num-episodes", "1", "--no-cameras", "--dummy", "3", "--workers", "1"]
    run(tree, "collect.py", *words, "--output", str(tmp_path / "set"))
    stored = json.loads((tmp_path / "set/meta/collection.json").read_text())
    assert stored["dummy"] == 3


@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_is_explained(cls):
    assert all(documentation(cls, field.name) for field in dataclasses.fields(cls))


def test_a_name_that_users_know_is_still_an_option():
    assert parse_collect("--wander-rad", "0.1").path_noise_rad == 0.1
    assert parse_collect("--path-noise-rad", "0.1").path_noise_rad == 0.1


def test_words_become_values():
    options = parse_collect(
        *("--output", "s3://bucket/set", "--resolution", "640x480", "--no-cameras", "--resume"),
        *("--workers", "3", "--keep", "all", "--ray-address", "auto"),
    )
    assert options.output == "s3://bucket/set"
    assert options.resolution == (640, 480)
    assert (options.record_cameras, options.resume, options.workers) == (False, True, 3)
    assert parse_collect("--resolution", "96x96").resolution == 96
    assert parse_collect().output == Path("datasets/pick_place")


def test_cameras_are_chosen_by_name():
    assert parse_collect().cameras == ("cam_high", "cam_wrist")
    options = parse_collect("--cameras", "cam_front", "cam_wrist", "--no-cameras")
    assert options.cameras == ("cam_front", "cam_wrist")
    assert not options.record_cameras
    assert [camera.name for camera in make_config(options).cameras] == list(options.cameras)
    assert parse_collect("--cameras", "cam_front,cam_wrist").cameras == options.cameras


@pytest.mark.parametrize("names", [("cam_low",), ("cam_high", "cam_high"), ()])
def test_cameras_that_cannot_be(names, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_collect("--cameras", *names)
    assert stopped.value.code == 2
    known = "cam_high, cam_wrist, cam_front, cam_side"
    wanted = f"--cameras must be some of {known}, each once, got {' '.join(names) or 'none'}"
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-episode", "3"], "there is no option --num-episode; did you mean --num-episodes?"),
        (["--nois=0"], "there is no option --nois; did you mean --noise-rad?"),
        (["--verison"], "there is no option --verison; did you mean --version?"),
        (["--xyzzy"], "there is no option --xyzzy; see collect.py --help"),
        (["extra"], "'extra' is not expected; options begin with -- (collect.py --help)"),
        (
            ["--preset", "prety"],
            "must be one of default, fast, filament, pretty, got 'prety'; did you mean pr",
        ),
        (["--keep", "alll"], "--keep must be one of success, all, got 'alll'; did you mean all?"),
        (["--codec", "h265"], "got 'h265'; did you mean h264?"),
        (["--cameras", "cam_hihg"], "each once, got cam_hihg; did you mean cam_high?"),
        (["--start-mix", "hmoe=1"], "got 'hmoe' in 'hmoe=1'; did you mean home?"),
        (["--num-episodes", "3.5"], "--num-episodes must be a whole number, got '3.5'"),
        (["--output", ""], "--output must not be empty; this folder is ."),
        (["--output="], "--output must not be empty"),
        (["--status-file", ""], "--status-file must not be empty"),
        (["--hepl"], "there is no option --hepl; did you mean --help?"),
        (["--workers", "many"], "--workers must be a whole number, got 'many'"),
        (["--noise-rad", "0,1"], "--noise-rad must be a number, got '0,1'"),
        (["--resolution", "big"], "--resolution must be pixels, such as 512 or 640x480, got 'big'"),
        (
            ["--object", "mustard_bottle"],
            "--object mustard_bottle is of the YCB set; give --use-yc",
        ),
        (["--object", "005_tomato_soup_can"], "is of the YCB set; give --use-ycb, too"),
    ],
)
def test_a_word_that_is_wrong_is_answered_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_collect(*words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("collect.py: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--num-episodes"], ["--seed", "1", "--task"]])
def test_an_option_without_its_value_is_answered_in_one_line(words, capsys):
    with pytest.raises(SystemExit):
        parse_collect(*words)
    error = capsys.readouterr().err
    assert words[-1] in error
    assert error.endswith("(collect.py --help)\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (EvaluateOptions, "x: error: --policy is missing: expert, reactive"),
        (ReplayOptions, "x: error: DATASET is missing: the recorded dataset (x --help)"),
        (PushOptions, "x: error: DATASET is missing: the dataset (x --help)"),
        (MergeOptions, "x: error: --output is missing: absent or empty folder (x --help)"),
    ],
)
def test_what_is_missing_is_named_in_one_line(cls, message, capsys):
    with pytest.raises(SystemExit):
        parse(cls, [], prog="x", description="", example="")
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


@pytest.mark.parametrize("cls", [CollectOptions, EvaluateOptions, ReplayOptions, MergeOptions])
def test_every_command_tells_its_version(cls, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(cls, ["--version"], prog="x", description="", example="")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"x {version()}\n"


@pytest.mark.parametrize(
    ("started", "name"), [("/x/bin/pp-collect", "pp-collect"), ("collect.py", "collect.py")]
)
def test_a_program_calls_itself_as_it_was_called(started, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit):
        collect.main(["--version"])
    assert capsys.readouterr().out == f"{name} {version()}\n"


def test_help_may_be_cut_short():
    command = [sys.executable, "-m", "pp_collect.evaluate", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_tilde_is_the_home_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    home = Path("/home/someone")
    options = parse_collect(
        *("--output=~/set", "--status-file=~/status.json", "--assets-root=~/assets"),
        *("--simulator", "isaacsim", "--use-ycb", "--ycb-meshes=~", "--task", "~/text"),
    )
    assert (options.output, options.status_file) == (home / "set", home / "status.json")
    assert (options.ycb_meshes, options.assets_root) == (home, "/home/someone/assets")
    assert options.task == "~/text"
    measured = EvaluateOptions(policy="~/act", videos=Path("~/v"), json=Path("~/r.json"))
    assert (measured.policy, measured.videos) == ("/home/someone/act", home / "v")
    assert ReplayOptions(dataset=Path("~/set"), render=Path("~/new")).render == home / "new"
    joined = MergeOptions(sources=("~/a", "b"), output=Path("~/whole"))
    assert (joined.sources, joined.output) == (("/home/someone/a", "b"), home / "whole")
    assert InspectOptions(dataset=Path("~/set"), html="~/r.html").html == "/home/someone/r.html"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--streaming-port", "5000"], "--streaming-port: only for --streaming; give that, too"),
        (["--streaming-host", "::1"], "--streaming-host: only for --streaming; give that, too"),
        (["--gpu-share", "0.5"], "--gpu-share is for --ray-address"),
        (["--staging", "here"], "--staging is for an --output with a URL"),
        (["--ycb-meshes", "here"], "are for --use-ycb; give that, too"),
        (["--joint-speed", "1"], "--joint-speed is for --expert reactive"),
    ],
)
def test_an_option_without_effect_is_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        parse_collect(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("values", [{"videos_of": "all"}, {"max_videos": 3}])
def test_which_videos_is_refused_without_videos(values):
    name = "--" + next(iter(values)).replace("_", "-")
    with pytest.raises(ValueError, match=f"{name}: only for --videos DIR; give that, too"):
        EvaluateOptions(policy="expert", **values)
    EvaluateOptions(policy="expert", videos=Path("v"), **values)


def test_a_tilde_of_no_user_is_a_name():
    assert parse_collect("--output", "~no-such-user/set").output == Path("~no-such-user/set")


@pytest.mark.parametrize("cls", [CollectOptions, EvaluateOptions, ReplayOptions, BridgeOptions])
def test_every_path_is_known_as_one(cls):
    """An option whose help shows a folder or a file has its `~` replaced."""
    for name, hint in get_type_hints(cls, include_extras=True).items():
        metavars = [getattr(part, "metavar", None) for part in get_args(hint)]
        if {"DIR", "FILE", "OUT", "DATASET", "DIR|URL", "CHECKPOINT"} & set(metavars):
            kinds = get_args(get_args(hint)[0]) or get_args(hint)
            assert Path in kinds or PATH_TEXT in get_args(hint), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1, got 0"),
        ({"num_episodes": "3"}, "num_episodes must be a number, got '3'"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"gpu_share": 2, "ray_address": "auto"}, "gpu_share must be from 0 to 1, got 2"),
        ({"keep": "some"}, "keep must be one of success, all, got 'some'"),
        ({"simulator": "bullet"}, "simulator must be one of isaacsim, mujoco, warp, got 'bullet'"),
        ({"task": "  "}, "task must not be empty"),
        ({"noise_rad": float("nan")}, "noise_rad must be from 0 to"),
    ],
)
def test_an_invalid_value_cannot_exist(values, message):
    with pytest.raises(OptionError, match=message):
        CollectOptions(**values)
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(CollectOptions(), **values)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(OptionError, match="noise_rat is no option; did you mean noise_rad"):
        from_names(CollectOptions, {"noise_rat": 0.1})


def test_options_of_another_kind_keep_what_both_have():
    evaluate = EvaluateOptions(policy="expert", use_ycb=True, resolution=64, seed=3)
    session = select(SessionOptions, evaluate, keep="all", policy=None)
    assert (session.use_ycb, session.resolution, session.seed, session.keep) == (True, 64, 3, "all")


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CollectOptions().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_stored_options_of_an_older_dataset_have_defaults_where_they_say_nothing():
    stored = {"seed": 4, "simulator": "mujoco", "codec": "h264", "wander_rad": 0.1}
    options = stored_options(stored, cameras=False)
    assert (options.seed, options.path_noise_rad, options.noise_rad) == (4, 0.1, 0.05)
    assert options.object is None


def test_no_two_classes_declare_the_same_option_differently():
    """`SceneOptions` and `DemonstrationOptions` are inherited by the same class."""
    names = {field.name for field in dataclasses.fields(SceneOptions)}
    assert not names & {field.name for field in dataclasses.fields(DemonstrationOptions)}
    assert (
        get_type_hints(CollectOptions, include_extras=True)["fps"]
        == (get_type_hints(SceneOptions, include_extras=True)["fps"])
    )
