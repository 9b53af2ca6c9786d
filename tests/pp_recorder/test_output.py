"""What a program prints, as its readers get it."""

import os
import subprocess
import sys

import pytest

from tests import ROOT, read_setup

PROGRAM = """
import os, sys
from pp_recorder.output import outlive_readers
outlive_readers()
print("to stdout")
print("to stderr", file=sys.stderr)
os._exit(0)  # nothing that waits in a buffer is written
"""


def test_unbuffered_output_stays_unbuffered():
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "to stdout\n", "to stderr\n")


def run_script(name, *words, **streams):
    """Run a console script; return its exit status, and its stderr if that is a pipe."""
    scripts = read_setup()["options.entry_points"]["console_scripts"].strip().splitlines()
    module, function = dict(line.split(" = ") for line in scripts)[name].split(":")
    call = f"import sys, {module} as start; sys.exit(start.{function}())"
    done = subprocess.run([sys.executable, "-c", call, *words], cwd=ROOT, text=True, **streams)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["inspect", "replay", "merge", "pack", "push", "evaluate"])
def test_a_reader_that_has_gone_does_not_matter(name):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        status = run_script(f"pp-{name}", "--version", stdout=gone, stderr=subprocess.PIPE)
    assert status == (0, "")


def test_a_report_that_a_full_disk_has_lost_is_no_success():
    with open("/dev/full", "w") as full:
        status, _ = run_script("pp-inspect", "--version", stdout=full, stderr=subprocess.PIPE)
    assert status != 0


@pytest.mark.parametrize(
    "words",
    [
        ("pp-collect", "--num-episodes", "1", "--no-cameras", "--workers", "1", "--output"),
        ("pp-evaluate", "--policy", "random", "--num-episodes", "1", "--max-steps", "3", "--json"),
        ("pp-collect", "--help", "--output"),
    ],
)
def test_without_standard_output_and_error_a_command_works(words, tmp_path):
    name, *rest = words
    if "--help" not in rest:
        pytest.importorskip("mujoco")

    def close_both():
        os.close(1)
        os.close(2)

    assert run_script(name, *rest, str(tmp_path / "x"), preexec_fn=close_both)[0] == 0
    assert (tmp_path / "x").exists() or "--help" in rest
