"""What a program prints, as its readers get it."""

import os
import subprocess
import sys

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
