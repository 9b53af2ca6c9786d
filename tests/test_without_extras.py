"""Every program explains itself without what is optional, and says what it lacks."""

import json
import subprocess
import sys

import pytest

from pp_recorder.command_line import version
from tests import ROOT
from tests.test_wheel import entry_points

EXTRAS = (
    *("fastapi", "uvicorn", "aiortc", "pydantic", "prometheus_client", "pythonjsonlogger", "h11"),
    *("huggingface_hub", "fsspec", "ray", "torch", "lerobot", "stable_baselines3", "matplotlib"),
)
BLOCK = f"""
import sys
from importlib.machinery import PathFinder

class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {EXTRAS}
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
"""
EACH = """
import json
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

said = {}
for script, (module, function), word in json.loads(sys.argv[1]):
    sys.argv = [script, word]
    with redirect_stdout(StringIO()) as out:
        try:
            getattr(import_module(module), function)()
        except SystemExit as end:
            said[f"{script} {word}"] = [end.code, out.getvalue()]
print(json.dumps(said))
"""
PIP = {
    "train_bc.py": "error: torch is not installed; try: pip install torch",
    "train_in_memory.py": "error: torch is not installed; try: pip install 'lerobot[training]>=0.6",
    "train_sb3.py": "torch is not installed; try: pip install stable-baselines3 matplotlib",
}


def run_blocked(program, *words):
    return subprocess.run(
        [sys.executable, "-c", BLOCK + program, *words], cwd=ROOT, capture_output=True, text=True
    )


def test_every_command_explains_itself_and_tells_its_version():
    calls = [
        (script, place.split(":"), word)
        for script, place in entry_points().items()
        for word in ("--help", "--version")
    ]
    done = run_blocked(EACH, json.dumps(calls))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for script, _, word in calls:
        status, text = said[f"{script} {word}"]
        assert status == 0
        expected = f"usage: {script}" if word == "--help" else f"{script} {version()}\n"
        assert text.startswith(expected)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_every_example_explains_itself(name):
    start = f"import runpy\nsys.argv = [{name!r}, '--help']\n"
    done = run_blocked(f"{start}runpy.run_path('examples/{name}', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout or "python examples/" in done.stdout


@pytest.mark.parametrize("name", PIP)
def test_an_example_names_what_it_lacks(name):
    start = f"import runpy\nsys.argv = [{name!r}]\n"
    done = run_blocked(f"{start}runpy.run_path('examples/{name}', run_name='__main__')")
    assert done.returncode == 1
    assert PIP[name] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("from pp_bridge.__main__ import main; main(['--root', '/nowhere'])", "[bridge]"),
        ("import collect; collect.main(['--ray-address', 'auto'])", "[ray]"),
        ("import collect; collect.main(['--streaming'])", "[bridge]"),
        ("import collect; collect.main(['--push-to-hub', 'me/set'])", "[hub]"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(program, message):
    done = run_blocked(program)
    assert done.returncode == 2
    assert f"pip install 'franka-pick-place{message}'" in done.stderr.replace('"', "'")
    assert done.stderr.count("\n") == 1
