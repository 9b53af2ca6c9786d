"""The result of a check, its findings, and helpers for their wording."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class UnavailableError(RuntimeError):
    """A check does not apply or lacks data that it needs; the message says which."""


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset.

    Attributes:
        check: The name of the check that found it.
        severity: "error" or "warning".
        message: A sentence with the expected and the found value.
        episode: The episode, or None if the problem is not about one episode.
        frame: The frame in the episode, or None.
    """

    check: str
    severity: str
    message: str
    episode: int | None = None
    frame: int | None = None


@dataclass
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: The name of the check.
        note: One line about the data that was checked.
        findings: The problems found.
        skipped: True if the check could not be carried out or does not apply.
        seconds: Wall time.
    """

    name: str
    note: str = ""
    findings: list[Finding] = field(default_factory=list)
    skipped: bool = False
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """Return PASS, WARN, FAIL or SKIP."""
        if any(f.severity == "error" for f in self.findings):
            return "FAIL"
        if self.findings:
            return "WARN"
        return "SKIP" if self.skipped else "PASS"

    def add_error(self, message: str, episode: int | None = None, frame: int | None = None) -> None:
        """Add a finding that makes the dataset unsound."""
        self.findings.append(Finding(self.name, "error", message, episode, frame))

    def add_warning(
        self, message: str, episode: int | None = None, frame: int | None = None
    ) -> None:
        """Add a finding that deserves a look."""
        self.findings.append(Finding(self.name, "warning", message, episode, frame))


def text_of(frames: Any) -> str:
    """Return `frame 7` or `frames 7..19 (4 of them)`."""
    if len(frames) == 1:
        return f"frame {frames[0]}"
    return f"frames {frames[0]}..{frames[-1]} ({len(frames)} of them)"


def named(episodes: Sequence[int]) -> str:
    """Return `episode 3`, or `episode 3 (and 2 more)` for several."""
    more = f" (and {len(episodes) - 1} more)" if len(episodes) > 1 else ""
    return f"episode {episodes[0]}{more}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
