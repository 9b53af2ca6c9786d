"""What a check reports: findings, its outcome, and how they are worded."""

from dataclasses import dataclass, field
from typing import Any


class UnavailableError(RuntimeError):
    """What a check needs is not there, or it does not apply; the message says which."""


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        check: The name of the check that found it.
        severity: "error" or "warning".
        message: A sentence with what was expected and what was found.
        episode: Where, or None if it is not about one episode.
        frame: Where in the episode, or None.
    """

    check: str
    severity: str
    message: str
    episode: int | None = None
    frame: int | None = None


@dataclass
class Result:
    """The outcome of one check.

    Attributes:
        name: Of the check.
        note: One line on what was looked at.
        findings: What is wrong.
        skipped: Whether the check could not be carried out or does not apply.
        seconds: Wall time.
    """

    name: str
    note: str = ""
    findings: list[Finding] = field(default_factory=list)
    skipped: bool = False
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """PASS, WARN, FAIL or SKIP."""
        if any(f.severity == "error" for f in self.findings):
            return "FAIL"
        if self.findings:
            return "WARN"
        return "SKIP" if self.skipped else "PASS"

    def error(self, message: str, episode: int | None = None, frame: int | None = None) -> None:
        """Logs something that makes the dataset unsound."""
        self.findings.append(Finding(self.name, "error", message, episode, frame))

    def warning(self, message: str, episode: int | None = None, frame: int | None = None) -> None:
        """Logs something to look at."""
        self.findings.append(Finding(self.name, "warning", message, episode, frame))


def text_of(frames: Any) -> str:
    """`frame 7` or `frames 7..19 (4 of them)`."""
    if len(frames) == 1:
        return f"frame {frames[0]}"
    return f"frames {frames[0]}..{frames[-1]} ({len(frames)} of them)"


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
