"""The fenced blocks of the README and of docs/, and how to run them.

Usage: python3 -m tests.pages       (make check-tutorial)

A block of `sh` or `python` is run as it stands, by `make test` unless a comment in the line before
it says who else runs it, or why nobody does:

    <!-- run by make test-long with --num-episodes 1 -->    the words are appended to its programs
    <!-- run by make check-tutorial -->
    <!-- run by tests/pp_recorder/test_recording.py -->
    <!-- saved as my_policies.py -->                         for the blocks of its page
    <!-- not run in tests: needs a cluster -->

Blocks of `text` are no commands. The blocks of a page that the same target runs are one script.
As a program this runs those of `make check-tutorial`, in a copy of the project in build/tutorial,
where docs/tutorial.md makes the environment for all of them. Standard library only.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGETS = ("make test", "make test-long", "make check-tutorial")
COMMANDS = ("sh", "python")
_TUTORIAL = ROOT / "docs" / "tutorial.md"
_VENV = ".venv-tutorial"
DEMO = "pp-collect --num-episodes 3 --resolution 64 --preset fast --output datasets/demo --resume"

_FENCE = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file that it is in.
        line: Number of its opening line.
        language: The word behind the opening fence.
        text: What is between the fences.
        comment: The comment in the line before it, or "".
    """

    page: Path
    line: int
    language: str
    text: str
    comment: str

    @property
    def runner(self) -> str:
        """A target, or the path of a test; "" if it is not run."""
        if self.language not in COMMANDS or self.saved_as or self.reason:
            return ""
        found = re.fullmatch(r"run by (make [\w-]+|tests/[\w/]+\.py)(?: with .*)?", self.comment)
        return found[1] if found else "" if self.comment else "make test"

    @property
    def words(self) -> str:
        """What is appended to the programs in it."""
        return self.comment.partition(" with ")[2] if self.runner else ""

    @property
    def reason(self) -> str:
        """Why it is not run, or ""."""
        return self._after("not run in tests: ")

    @property
    def saved_as(self) -> str:
        """The file that it is saved as, or ""."""
        return self._after("saved as ")

    def _after(self, prefix: str) -> str:
        return self.comment[len(prefix) :] if self.comment.startswith(prefix) else ""

    @property
    def script(self) -> str:
        """Lines of bash that run it."""
        if self.saved_as:
            return f"cat > {self.saved_as} <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK\n"
        if self.language == "python":
            return f"python - <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK\n"
        if not self.words:
            return self.text
        lines = [re.sub(r"\s+#.*", "", line) for line in self.text.splitlines()]
        joined = "\n".join(lines).replace("\\\n", " ")
        program = re.compile(r"^(?:pp-|lerobot-|python ).*", re.MULTILINE)
        return program.sub(rf"\g<0> {self.words}", joined) + "\n"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["text"],
            found["comment"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def pages() -> list[Path]:
    """Return the README and all pages in docs/, the tutorial first."""
    others = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [_TUTORIAL, *(page for page in others if page != _TUTORIAL)]


def script_of(page: Path, target: str) -> str:
    """Return the script of a page's blocks that a target runs, "" if there are none."""
    of_page = blocks(page)
    wanted = [block for block in of_page if block.runner == target]
    if not wanted:
        return ""
    parts = ["set -e\n", *(block.script for block in of_page if block.saved_as)]
    for block in wanted:
        name = f"{page.relative_to(ROOT)}:{block.line}"
        parts.append(f"echo '== {name}' >&2\n{block.script}\n")
    return "".join(parts)


def copy_project(folder: Path) -> None:
    """Make a folder a copy of the project without ignored files; keep the environment in it."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != _VENV:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():  # not deleted since the last commit
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def main() -> int:
    """Run the blocks of `make check-tutorial`; return the exit status."""
    folder = ROOT / "build" / "tutorial"
    copy_project(folder)
    for page in pages():
        script = script_of(page, "make check-tutorial")
        if page != _TUTORIAL:
            script = script and f". {_VENV}/bin/activate\n{DEMO}\n{script}"
        status = subprocess.run(["bash", "-c", script], cwd=folder).returncode
        if status:
            print(f"{page.relative_to(ROOT)} failed with status {status}", file=sys.stderr)
            return 1
    print("OK: the tutorial, and the blocks that need its environment")
    return 0


if __name__ == "__main__":
    sys.exit(main())
