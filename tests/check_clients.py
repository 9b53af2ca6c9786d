"""Run other people's tools on a dataset and on the environment, and write what came of it.

Usage: python -m tests.check_clients [--lerobot PYTHON] [--only NAME ...]      (make check-clients)

Needs an environment with `tests/clients-requirements.txt`. `--lerobot` is a Python that has lerobot
0.4.4. Each check has a process of its own. Writes benchmarks/results/clients.json, of which
`python -m benchmarks.report` makes the table in docs/clients.md, and exits with 1 if a check
failed whose failure is not known.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import RESULTS
from tests import clients

_TIMEOUT = 600  # s


class Check(NamedTuple):
    """What one client is to do.

    Attributes:
        client: Name of its distribution.
        what: What it does, for the table.
        run: Function of the dataset and of an empty folder, which returns a sentence.
        old: Whether it runs with lerobot 0.4.4, too.
        known: Why it cannot succeed, if the client is the reason.
    """

    client: str
    what: str
    run: Callable[[Path, Path], str]
    old: bool = False
    known: str = ""


CHECKS = (
    Check("lerobot", "load", clients.lerobot_load, old=True),
    Check("lerobot", "stream", clients.lerobot_stream),
    Check("lerobot", "delete an episode", clients.lerobot_delete, old=True),
    Check("lerobot", "split", clients.lerobot_split, old=True),
    Check("lerobot", "merge two sets of ours", clients.lerobot_merge, old=True),
    Check("lerobot", "load what pp-merge made of ours and one it recorded", clients.pp_merge, True),
    Check("lerobot", "train an ACT, evaluate it with pp-evaluate", clients.lerobot_train, old=True),
    Check("lerobot", "lerobot-eval, --env.type=frankapickplace", clients.lerobot_eval),
    Check("lerobot", "lerobot-eval, env.py of an EnvHub repository", clients.lerobot_hub),
    Check("lerobot", "annotate", clients.lerobot_annotate),
    Check("lerobot", "lerobot-dataset-viz to a file", clients.lerobot_viz),
    Check("lerobot-lancedb", "lerobot-lance-convert, lerobot-lance-doctor", clients.lance),
    Check("lerobot-doctor", "check", clients.lerobot_doctor),
    Check("lerobot-lint", "lelint check", clients.lerobot_lint, known=clients.LINT),
    Check("datasets", "load_dataset of the folder", clients.load_dataset),
    Check("duckdb", "query the parquet files", clients.duckdb),
    Check("rerun-sdk", "rerun DATASET --save", clients.rerun),
    Check("forge-robotics", "inspect, quality, convert to MCAP", clients.forge),
    Check("gymnasium", "check_env", clients.gymnasium_checker),
    Check("gymnasium", "AsyncVectorEnv with pictures, default context", clients.async_vector),
    Check("stable_baselines3", "check_env", clients.sb3_checker),
    Check("stable_baselines3", "SAC with HER, PPO from pictures", clients.sb3_train),
    Check("torchrl", "GymEnv, GymWrapper, ParallelEnv", clients.torchrl_single),
    Check("torchrl", "GymWrapper of the native vector environment", clients.torchrl_vector),
    Check("minari", "record, reload, recover the environment", clients.minari),
    Check("ray", "RLlib's PPO", clients.rllib),
)


def name_of(check: Check) -> str:
    """Return a check's name, that of its function."""
    return check.run.__name__


def run_all(chosen: list[Check], pythons: dict[bool, str | None]) -> list[dict[str, Any]]:
    """Run checks one after the other; return a row of the table for each.

    Args:
        chosen: The checks.
        pythons: The Python with lerobot 0.4.4, by True, if there is one, and the other's by False.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        dataset = Path(temporary) / "dataset"
        clients.collect(dataset)
        for check in chosen:
            for old in (True, False) if check.old else (False,):
                python = pythons[old]
                if python is None:
                    continue
                folder = Path(temporary) / "work"
                folder.mkdir()
                rows.append(row := run_one(check, python, dataset, folder))
                shutil.rmtree(folder)
                print(f"{row['result']:7}{row['client']} {row['version']}: {row['what']}", end="")
                print(f": {row['sentence']}", flush=True)
    return rows


def run_one(check: Check, python: str, dataset: Path, folder: Path) -> dict[str, Any]:
    """Run a check in a process of its own; return its row."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "huggingface")}
    command = [python, "-m", "tests.check_clients", "--run", name_of(check)]
    command += ["--dataset", str(dataset), "--folder", str(folder)]
    environment = {"MUJOCO_GL": "egl", **os.environ, **offline}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT
        )
        text = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()
        passed, last = done.returncode == 0, text.splitlines()[-1] if text else "no output"
    except subprocess.TimeoutExpired:
        passed, last = False, f"not done after {_TIMEOUT} s"
    result = "passed" if passed else "known" if check.known else "FAILED"
    return {
        "client": check.client,
        "version": version_of(check.client, python),
        "what": check.what,
        "result": result,
        "sentence": check.known if result == "known" else last.replace("|", "/")[:300],
    }


def version_of(client: str, python: str) -> str:
    """Return the version of a distribution that a Python has."""
    if python == sys.executable:
        return metadata.version(client)
    asked = f"from importlib.metadata import version; print(version({client!r}))"
    return subprocess.check_output([python, "-c", asked], text=True).strip()


def save(rows: list[dict[str, Any]], keep_others: bool) -> None:
    """Write the table's rows; with `keep_others` those of earlier runs of other checks stay."""
    path = RESULTS / "clients.json"
    known = json.loads(path.read_text()) if keep_others and path.exists() else []
    names = {(row["client"], row["what"], row["version"]) for row in rows}
    rows = rows + [r for r in known if (r["client"], r["what"], r["version"]) not in names]
    order = [(check.client, check.what) for check in CHECKS]
    rows.sort(key=lambda row: (order.index((row["client"], row["what"])), row["version"]))
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=2))


def main() -> int:
    """Run the checks, or the one that was asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerobot", help="a Python that has lerobot 0.4.4")
    parser.add_argument("--only", nargs="+", choices=[name_of(check) for check in CHECKS])
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        sentence = getattr(clients, given.run)(given.dataset, given.folder)
        print(f"\n{sentence}", flush=True)
        return 0
    chosen = [check for check in CHECKS if given.only is None or name_of(check) in given.only]
    rows = run_all(chosen, {True: given.lerobot, False: sys.executable})
    save(rows, keep_others=given.only is not None)
    failed = [row for row in rows if row["result"] == "FAILED"]
    print(f"{len(rows) - len(failed)} of {len(rows)} checks ended as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
