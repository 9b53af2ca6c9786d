"""The report of the Isaac Sim self-test: a JSON file, and one page to attach to an issue.

The page is the template `isaac_report.html.j2`, complete in itself. Both files are replaced after
every answer, so that a run that hangs or crashes leaves what it found.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pp_recorder.checks.html_report import page_environment

_TEMPLATE = "isaac_report.html.j2"
_LARGEST_ATTACHMENT = 25e6  # bytes that GitHub takes
_LARGEST_VIDEO = 4e6  # bytes; a longer one stays beside the page
_SHORTEST_SECRET = 8  # letters; a shorter value could be a part of any word
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|access_?key", re.IGNORECASE)
_SECRET_TEXTS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),  # user and password in an address
    (re.compile(r"(://[^\s?#'\"]+)\?[^\s'\"]+"), r"\1?..."),  # a signed address
    (re.compile(r"/(?:home|Users|media)/[^/\s:'\"]+"), "~"),
)

# For a person, and in .github/ISSUE_TEMPLATE/isaac_sim.yml: no program can tell.
HUMAN_QUESTIONS = (
    "The pictures show the robot, the table, the object and the marker, neither too bright nor "
    "too dark",
    "The videos play, and the arm moves in them without jumps",
    "With --streaming: the streaming client showed the scene, and it moved",
)


class Report:
    """What is known so far, in `report.json` and `report.html`.

    Args:
        folder: Where the files are written; it must exist.
        facts: Entries of the JSON: see `update`.
    """

    def __init__(self, folder: Path, **facts: Any) -> None:
        self._folder = folder
        self._facts: dict[str, Any] = {
            "state": "starting", "question": None, "error": None, "exit_status": None,
            "results": [], "left_out": [], **facts,
        }  # fmt: skip
        self._pictures: dict[str, str] = {}
        self._videos: dict[str, str] = {}

    def update(self, **facts: Any) -> None:
        """Set entries and write both files.

        Entries: `state` is starting, running, complete, failed or interrupted; `question` is being
        asked; `error` ended the run; `exit_status`; `results` are the answers; `machine`,
        `options` and `simulator` describe what ran.

        A full disk costs the report, not the run: it is warned of.
        """
        self._facts.update(facts)
        try:
            self.write()
        except OSError as error:
            print(f"warning: the report cannot be written: {error}", file=sys.stderr)

    def write(self) -> None:
        """Write both files.

        Raises:
            OSError: It cannot be done.
        """
        _replace(self._folder / "report.json", self.to_json())
        _replace(self._folder / "report.html", self.to_html())

    def add_picture(self, name: str, jpeg: bytes) -> None:
        """Keep a JPEG file for the page, and beside it."""
        (self._folder / f"{name}.jpg").write_bytes(jpeg)
        self._pictures[name] = _data_url("image/jpeg", jpeg)

    def add_video(self, name: str, path: Path) -> None:
        """Show an MP4 file in the page, unless it is too large for that."""
        if path.stat().st_size > _LARGEST_VIDEO:
            self._facts["left_out"].append(f"{name}: {path.relative_to(self._folder)}")
        else:
            self._videos[name] = _data_url("video/mp4", path.read_bytes())

    def to_json(self) -> str:
        """Return the facts, without the user's folders and secrets."""
        return json.dumps(_without_secrets(self._facts), indent=2, default=str) + "\n"

    def to_html(self) -> str:
        """Return the page, complete in itself."""
        facts = json.loads(self.to_json())
        passed, failed = (
            sum(r["passed"] is value for r in facts["results"]) for value in (True, False)
        )
        template = page_environment(Path(__file__).parent).get_template(_TEMPLATE)
        return template.render(
            facts=facts,
            passed=passed,
            failed=failed,
            verdict=_verdict(facts, passed, failed),
            totals=dict(_leaves(facts.get("machine", {}))),
            pictures=self._pictures,
            videos=self._videos,
            questions=HUMAN_QUESTIONS,
            json_text=self.to_json(),
        )

    def describe_files(self) -> str:
        """Return one sentence about where the page is, and whether it can be attached."""
        page = self._folder / "report.html"
        try:
            size = page.stat().st_size
        except OSError:
            return "there is no report.html"
        if size > _LARGEST_ATTACHMENT:
            return (
                f"{page} has {size / 1e6:.0f} MB, more than GitHub takes: run it with less "
                "--resolution, or attach report.json"
            )
        return f"{page} can be attached to an issue ({size / 1e6:.1f} MB)"


def _verdict(facts: dict[str, Any], passed: int, failed: int) -> str:
    counts = f"{passed} passed, {failed} failed"
    if facts["error"]:
        return f"{facts['state'].capitalize()}: {counts}"
    if facts["question"]:
        return f"Unfinished: {facts['question']!r} was being asked; {counts} before"
    if facts["state"] == "starting":
        return "Unfinished: Isaac Sim was starting when this was written"
    return counts.capitalize()


def _replace(path: Path, text: str) -> None:
    """Write a file so that no reader, and no crash, sees half of it."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _leaves(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _without_secrets(value: Any) -> Any:
    """Return facts without home folders, passwords and tokens."""
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    for secret in _secrets():
        text = text.replace(secret, "...").replace(quote(secret), "...")
    if len(home := str(Path.home())) > 1:
        text = re.sub(rf"{re.escape(home)}(?=/|\W|$)", "~", text)
    for pattern, instead in _SECRET_TEXTS:
        text = pattern.sub(instead, text)
    return text


def _secrets() -> list[str]:
    """Return the values of environment variables whose names say that they are secret."""
    return [
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]
