"""The names, links, commands and options in the README and in docs/ exist, and the blocks run."""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pp_collect.options
from pp_bridge.options import BridgeOptions
from pp_collect import isaac_check
from pp_env.config import RENDER_PRESETS
from pp_recorder.checks import cli
from pp_recorder.command_line import Options
from pp_recorder.dataset import hub, merge, packing
from tests import ROOT, pages

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
RAW = "https://raw.githubusercontent.com/frankapickplace/frankapickplace/main/"


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


@functools.cache
def python_files():
    """Return the paths of the project's own modules, without those of environments in it."""
    return [path.as_posix() for path in ROOT.glob("[!.]*/**/*.py")]


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_python_files_exist(page):
    missing, saved = set(), {block.saved_as for block in pages.blocks(page)}
    for name in set(re.findall(r"`([\w./-]+\.py)`?", page.read_text())) - saved:
        package = page.name == "architecture.md" or (ROOT / "docs" / "decisions") in page.parents
        known = package and any(path.endswith(f"/{name}") for path in python_files())
        if not known and not (ROOT / name).exists():
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


def scripts(target: str) -> list:
    """Return the pages with blocks that a target runs, and their scripts."""
    found = [(page, pages.script_of(page, target)) for page in pages.pages()]
    return [pytest.param(script, id=identify(page)) for page, script in found if script]


def run_script(script: str, folder: Path) -> None:
    """Run a script of bash where this Python's environment is `.venv`, and active."""
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", pages.pages(), ids=identify)
def test_every_block_is_run_or_says_why_not(page):
    blocks = pages.blocks(page)
    assert len(re.findall(r"^\s*(?:```|~~~)", page.read_text(), re.MULTILINE)) == 2 * len(blocks)
    for block in blocks:
        place = f"{identify(page)}:{block.line}: {block.comment or block.language}"
        if block.language.startswith("{"):  # a directive of the documentation's builder
            continue
        assert block.language in (*pages.COMMANDS, "text"), place
        if block.language == "text":
            assert not block.comment, place
            assert not re.search(r"^(?:\$ |pp-|python |pip )", block.text, re.MULTILINE), place
        elif block.runner.startswith("tests/"):
            assert page.name in (ROOT / block.runner).read_text(), place
        elif block.runner:
            assert block.runner in pages.TARGETS, place
        else:
            assert block.reason or block.saved_as, place
            for path in re.findall(r"tests/[\w/.]*\w", block.reason):
                assert (ROOT / path).exists(), place
    assert "-m tests.pages" in (ROOT / "Makefile").read_text()


def test_commands_are_for_an_active_environment():
    for page in pages.pages():
        for block in pages.blocks(page):
            bare = re.sub(r"^\. \S+/bin/activate$", "", block.text, flags=re.MULTILINE)
            assert "/bin/pp-" not in bare, identify(page)
            assert ".venv" not in bare or bare.startswith("python3"), identify(page)


@pytest.mark.parametrize(
    ("text", "runner"),
    [
        ("```sh\nls\n```", "make test"),
        ("<!-- run by make test-long -->\n```sh\nls\n```", "make test-long"),
        ("<!-- run by nobody -->\n```sh\nls\n```", ""),
        ("<!-- not run in tests: slow -->\n```sh\nls\n```", ""),
        ("```text\nls\n```", ""),
    ],
)
def test_who_runs_a_block(text, runner, tmp_path):
    (tmp_path / "page.md").write_text(f"# Title\n\n{text}\n")
    (block,) = pages.blocks(tmp_path / "page.md")
    assert (block.text, block.runner) == ("ls\n", runner)


def test_words_are_appended_to_programs_alone(tmp_path):
    comment = "<!-- run by make test-long with --num-episodes 1 -->"
    commands = ". .venv/bin/activate\npp-collect --seed 1 \\\n    --output x  # why\n"
    (tmp_path / "page.md").write_text(f"{comment}\n```sh\n{commands}```\n")
    (block,) = pages.blocks(tmp_path / "page.md")
    activate, collect, _ = block.script.split("\n")
    words = ["--seed", "1", "--output", "x", "--num-episodes", "1"]
    assert activate == ". .venv/bin/activate"
    assert collect.split() == ["pp-collect", *words]


@pytest.mark.parametrize("script", scripts("make test"))
def test_blocks_run(script, tmp_path):
    run_script(script, tmp_path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return a folder with a dataset in datasets/demo."""
    folder = tmp_path_factory.mktemp("demo")
    run_script(pages.DEMO, folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("script", scripts("make test-long"))
def test_long_blocks_run(script, demo):
    run_script(script, demo)


def test_the_readmes_pictures_show_everywhere():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    for target in pictures:
        assert target.startswith(RAW), target
        assert (ROOT / target[len(RAW) :]).exists(), target


@pytest.mark.parametrize(
    ("in_readme", "measured"),
    [
        ("images of 512 x 512 per CPU second", "images per CPU s"),
        ("simulated seconds per CPU second", "simulated s per CPU s, state only"),
    ],
)
def test_the_readme_compares_what_was_measured(in_readme, measured):
    def row(page: str, section: str, name: str) -> list[str]:
        text = (ROOT / page).read_text().partition(f"## {section}\n")[2]
        return re.findall(rf"^\| {name} \| (.*) \|$", text, re.MULTILINE)[0].split(" | ")

    ours, _, robosuite, panda_gym, gym_hil = row("docs/performance.md", "Baselines", measured)
    wanted = [f"{float(ours):.0f}", robosuite, gym_hil, panda_gym]
    assert row("README.md", "How it compares", in_readme)[:4] == wanted


def test_the_page_has_all_presets():
    lines = (ROOT / "docs/performance.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    found = {cells[0].strip("`"): cells[1:] for cells in rows if len(cells) == 6}
    for name, preset in RENDER_PRESETS.items():
        renderer, samples, shadow_map, casting, kept = found[name]
        assert preset.renderer in renderer.lower()
        assert int(samples) == max(preset.samples, 1)
        assert shadow_map == (str(preset.shadow_map) if preset.shadow_map else "none")
        assert (casting == "what is seen") == preset.exact_shadows
        assert kept == (f"{preset.mesh_detail:.0%}".replace("%", " %")) or preset.mesh_detail == 1
