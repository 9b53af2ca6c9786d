"""The sdist and the wheel: what they hold, and that they work outside the checkout."""

import ast
import configparser
import email
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests import ROOT, read_setup

TOP_LEVEL = {"pp_env", "experts", "pp_collect", "pp_recorder", "pp_bridge", "collect"}
REPOSITORY = yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"]
NOT_SHIPPED = ".ci/"  # of the machine that merges
# A part of the tests that reads files of every folder, without those that take minutes.
OF_THE_SDIST = [
    *("tests/pp_env", "tests/experts", "tests/pp_recorder/dataset", "tests/pp_recorder/checks"),
    *("tests/pp_collect/test_options.py", "tests/pp_collect/test_policy.py"),
    *("tests/test_docs.py", "tests/test_deploy.py", "tests/test_reference.py"),
]
# Imported where it is installed, and not ours to install: a simulator, or the user's policy.
FROM_ELSEWHERE = {"isaacsim", "omni", "carb", "pxr", "lerobot", "torch"}
COMES_WITH = {"starlette": "fastapi", "glfw": "mujoco", "warp": "warp-lang"}
HEAVY = {"mujoco", "pyarrow", "av", "tyro", "pydantic", "jinja2"}


def entry_points() -> dict[str, str]:
    """Return the console scripts and the objects that they call."""
    lines = read_setup()["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


def run(command: list, cwd: Path, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def source_files() -> list[str]:
    """Return the files of a checkout, or of an sdist that has been unpacked."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = run(command, ROOT).stdout.splitlines()
    else:
        names = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*") if p.is_file()]
    made = ("__pycache__/", ".egg-info/", ".pytest_cache/", "PKG-INFO")
    return [name for name in names if (ROOT / name).exists() and not any(m in name for m in made)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Return a folder with an sdist, built from a copy of the sources, and a wheel of the sdist."""
    sources = tmp_path_factory.mktemp("sources")
    for name in source_files():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sources / name)
    built = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", built, sources], built)
    return built


@pytest.fixture(scope="module")
def sdist(built) -> Path:
    (path,) = built.glob("franka_pick_place-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(
    scope="module",
    params=["dependencies of this environment", pytest.param("index", marks=pytest.mark.long)],
)
def python(request, wheel, tmp_path_factory) -> Path:
    """Return the interpreter of a fresh environment with the wheel in it.

    The dependencies are those of the running environment, or come from the package index. A folder
    that is named in a .pth file comes after the environment's own, and its own .pth files are not
    read, so the checkout, which is installed there as editable, is not found.
    """
    folder = tmp_path_factory.mktemp("fresh")
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", "--quiet"]
    if request.param == "index":
        run([*pip, f"{wheel}[bridge]"], folder)
    else:
        run([*pip, "--no-deps", "--no-index", wheel], folder)
        show = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site_packages = Path(run([python, "-c", show], folder).stdout.strip())
        (site_packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


@pytest.fixture
def foreign(tmp_path) -> Path:
    """Return a folder with modules of a user's own that must not be imported."""
    for name in ("collect", "replay", "evaluate", "options"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a module of the user')\n")
    return tmp_path


def test_the_sdist_holds_every_file(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in source_files() if not name.startswith(NOT_SHIPPED)} - names == set()
    assert {name for name in names if name.endswith((".pyc", ".egg-info/PKG-INFO"))} <= {
        "franka_pick_place.egg-info/PKG-INFO"
    }


@pytest.mark.long
def test_the_sdist_passes_its_own_tests(sdist, tmp_path):
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *OF_THE_SDIST]
    done = run([*command, "-p", "no:cacheprovider"], folder, env=environment)
    assert " passed" in done.stdout
    assert " failed" not in done.stdout


def test_the_wheel_holds_six_top_level_names(wheel):
    names = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    (metadata,) = (name for name in names if name.endswith(".dist-info"))
    assert {name.removesuffix(".py") for name in names - {metadata}} == TOP_LEVEL


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    packages = [name for name in TOP_LEVEL if (ROOT / name).is_dir()]
    files = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_every_package_says_that_it_is_typed(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name for name in TOP_LEVEL if (ROOT / name).is_dir()}
    assert {f"{package}/py.typed" for package in packages} <= set(names)


def test_the_metadata_name_authors_places_and_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        written = email.message_from_bytes(archive.read(name))
    assert written["Author"] == "The FrankaPickPlace authors"
    places = dict(line.split(", ") for line in written.get_all("Project-URL"))
    assert {"Documentation", "Source", "Issues", "Changes"} <= places.keys()
    assert all(place.startswith(REPOSITORY) for place in places.values())
    assert set(written.get_all("Provides-Extra")) == set(read_setup()["options.extras_require"])


def test_what_is_imported_is_a_declared_dependency():
    setup = read_setup()
    declared = [setup["options"]["install_requires"]]
    extras = setup["options.extras_require"]
    declared += [extras[name] for name in extras if name not in ("dev", "docs")]
    lines = [line for text in declared for line in text.splitlines()]
    wanted = {
        Requirement(line).name.lower().replace("_", "-")
        for line in lines
        if line and not line.startswith("#")
    }
    known = sys.stdlib_module_names | TOP_LEVEL | FROM_ELSEWHERE
    providers = packages_distributions()
    undeclared = {}
    for name, module in imports().items():
        name = COMES_WITH.get(name, name)
        providing = {p.lower().replace("_", "-") for p in providers.get(name, [name])}
        if name not in known and not providing & wanted:
            undeclared[name] = module
    assert undeclared == {}


def imports() -> dict[str, Path]:
    """Return the top-level names that the packages import, and one module that does."""
    found = {}
    for path in [ROOT / "collect.py", *(p for t in TOP_LEVEL for p in (ROOT / t).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            found |= {name.split(".")[0]: path for name in names}
    return found


def test_the_entry_points_are_those_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        written = configparser.ConfigParser()
        written.read_string(archive.read(name).decode())
    assert dict(written["console_scripts"]) == entry_points()


@pytest.mark.parametrize("script", entry_points())
def test_every_command_explains_itself_in_a_folder_with_modules_of_the_same_names(
    python, foreign, script
):
    done = run([python.with_name(script), "--help"], foreign)
    assert done.stdout.startswith("usage:")


@pytest.mark.parametrize("module", ["pp_collect.evaluate", "pp_bridge", "pp_recorder.checks.cli"])
def test_a_module_runs_in_a_folder_with_modules_of_the_same_names(python, foreign, module):
    done = run([python, "-m", module, "--help"], foreign)
    assert done.stdout.startswith("usage:")


def test_two_episodes_are_collected_in_a_folder_with_modules_of_the_same_names(python, foreign):
    command = [python.with_name("pp-collect"), "--num-episodes", "2", "--no-cameras"]
    run([*command, "--workers", "2", "--output", "data"], foreign)
    info = json.loads((foreign / "data" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 2
    inspect = run([python.with_name("pp-inspect"), "data"], foreign)
    assert "2 episodes" in inspect.stdout


def test_importing_the_environment_loads_gymnasium_and_numpy_and_nothing_heavy(python, foreign):
    show = "import json, sys, pp_env; print(json.dumps([pp_env.__file__, *sys.modules]))"
    where, *modules = json.loads(run([python, "-c", show], foreign).stdout)
    assert Path(where).is_relative_to(python.parents[1])
    assert {"gymnasium", "numpy"} <= set(modules)
    assert HEAVY.isdisjoint(modules)
