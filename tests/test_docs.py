"""The names, links, commands and options in the README and in docs/ exist."""

import dataclasses
import re
from pathlib import Path

import pytest

import pp_collect.options
from pp_bridge.options import BridgeOptions
from pp_collect import isaac_check
from pp_recorder.checks import cli
from pp_recorder.command_line import Options
from pp_recorder.dataset import hub, merge, packing
from tests import ROOT

PACKAGES = ("pp_env", "experts", "pp_collect", "pp_recorder", "pp_bridge")
DECISIONS = ROOT / "docs" / "decisions"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "api").glob("*.md")),
    # Earlier decisions name what existed when they were made.
    *(page for page in sorted(DECISIONS.glob("*.md")) if page.name >= "015"),
]
LINKED_PAGES = [*PAGES, ROOT / "CHANGELOG.md", *DECISIONS.glob("*.md")]
GONE = {"replay.py", "pp_evaluate.py"}  # the decision about the tree tells what it replaced
PROGRAM = r"(?:collect\.py|pp-[a-z]+)(?= )"
OPTION = r"(?<![\w-])--[a-z][a-z-]*"


def identify(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def sections() -> dict[str, str]:
    """Return the sections of docs/architecture.md by their headings."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed_modules() -> set[str]:
    """Return the modules in the trees of docs/architecture.md, as paths."""
    found = set()
    for text in sections().values():
        folders: list[tuple[int, str]] = []
        for line in re.findall(r"^ *[\w/]+(?:\.py)?\b/?(?= |$)", text, flags=re.MULTILINE):
            name, indent = line.strip(), len(line) - len(line.lstrip())
            while folders and folders[-1][0] >= indent:
                folders.pop()
            if name.endswith("/"):
                folders.append((indent, name))
            elif name.endswith(".py"):
                found.add("".join(folder for _, folder in folders) + name)
    return found


def test_the_architecture_lists_every_module():
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed_modules() == modules


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_python_files_exist(page):
    missing = set()
    for name in re.findall(r"`([\w./-]+\.py)`?", page.read_text()):
        package = page.name == "architecture.md" or (ROOT / "docs" / "decisions") in page.parents
        places = [ROOT / name, *(ROOT.glob(f"*/**/{name}") if package else [])]
        if not any(place.exists() for place in places):
            missing.add(name)
    assert missing - GONE == set()


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_modules_exist(page):
    roots = "|".join([*PACKAGES, "benchmarks", "examples", "tests"])
    missing = set()
    for name in re.findall(rf"(?<![\w/.-])(?:{roots})(?:\.\w+)+", page.read_text()):
        parts = name.split(".")
        if parts[-1] == "py":
            continue
        places = [ROOT.joinpath(*parts[:count]) for count in (len(parts), len(parts) - 1)]
        if not any(place.is_dir() or place.with_suffix(".py").exists() for place in places):
            missing.add(name)
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"[`\n]make ([a-z0-9-]+)", page.read_text())) <= targets


@pytest.mark.parametrize("page", LINKED_PAGES, ids=identify)
def test_links_lead_somewhere(page):
    broken = set()
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.add(target)
    assert broken == set()


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def known_options() -> dict[str, set[str]]:
    """Return the options of every program."""
    ours = pp_collect.options
    classes = {
        "collect.py": ours.CollectOptions,
        "pp-bridge": BridgeOptions,
        "pp-evaluate": ours.EvaluateOptions,
        "pp-inspect": cli.InspectOptions,
        "pp-merge": merge.MergeOptions,
        "pp-pack": packing.PackOptions,
        "pp-push": hub.PushOptions,
        "pp-replay": ours.ReplayOptions,
        "pp-reproduce": ours.ReproduceOptions,
        "isaac_check": isaac_check.CheckOptions,
    }
    options = {name: flags(cls) for name, cls in classes.items()}
    options["pp-collect"] = options["collect.py"]
    return options


def flags(cls: type[Options]) -> set[str]:
    """Return the words for the options of a class."""
    found = {"--help", "--version"}
    for field in dataclasses.fields(cls):
        name = field.name.replace("_", "-")
        found |= {f"--{name}", f"--no-{name}"} if isinstance(field.default, bool) else {f"--{name}"}
    return found


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_commands_have_options_that_exist(page):
    known, text = known_options(), page.read_text().replace("\\\n", " ")
    for line in re.split(r"[\n`|;#]", text):
        for begin in re.finditer(PROGRAM, line):
            given = set(re.findall(OPTION, line[begin.end() :]))
            assert given <= known[begin[0]], line


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_options_in_the_text_are_some_programs(page):
    known = set().union(*known_options().values())
    sources = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    known |= {flag for path in sources for flag in re.findall(OPTION, path.read_text())}
    known |= {"--no-deps", "--scene"}  # of pip; an example of a name that does not exist
    given = set(re.findall(rf"`({OPTION})", page.read_text()))
    assert {flag for flag in given if not flag.startswith(("--env", "--entrypoint"))} <= known
