"""The reference of the site has every command and all that is exported; `make docs` builds it."""

import runpy
from importlib import import_module

import pytest

import pp_recorder
from pp_collect.options import CollectOptions
from tests import ROOT, read_setup
from tests.test_docs import known_options

API = ROOT / "docs" / "api"


@pytest.fixture(scope="module")
def conf():
    return runpy.run_path(str(ROOT / "docs" / "conf.py"))


def test_every_command_has_its_options_in_the_reference(conf):
    page = (API / "commands.md").read_text()
    scripts = read_setup()["options.entry_points"]["console_scripts"].split("\n")
    for script in filter(None, scripts):
        name = script.partition(" =")[0]
        section = page.split(f"## {name}\n")[1].split("## ")[0]
        module, cls = conf["_OPTIONS"].search(section).groups()
        table = conf["option_table"](module, cls)
        typed = {word.strip("`") for word in table.split() if word.startswith("`--")}
        assert typed <= known_options()[name]
        assert hasattr(import_module(module), cls)


def test_an_option_has_its_choices_its_default_and_its_meaning(conf):
    table = conf["option_table"](CollectOptions.__module__, "CollectOptions")
    assert "| `--keep` `success`, `all` | which episodes to keep; default `success` |" in table
    assert "| `--no-headless` | without the simulator's window |" in table
    assert "| `--cameras` `cam_high`, `cam_wrist`, `cam_front`, `cam_side` | which o" in table
    assert "| `--output` `DIR\\|URL` | absent or empty folder" in table


def test_what_the_recorder_exports_is_in_the_reference():
    page = (API / "recorder.md").read_text()
    assert [name for name in pp_recorder.__all__ if f":: pp_recorder.{name}\n" not in page] == []


@pytest.mark.parametrize(
    ("link", "source", "docname", "expected"),
    [
        ("docs/dataset.md#commands", "README.md", "index", "dataset.md#commands"),
        ("CHANGELOG.md", "README.md", "index", "changelog.md"),
        ("docs/decisions", "README.md", "index", "decisions/index.md"),
        ("../dataset.md", "docs/decisions/001-x.md", "decisions/001-x", "../dataset.md"),
        ("../README.md#limits", "docs/record.md", "record", "index.md#limits"),
        ("../LICENSE", "docs/record.md", "record", "REPOSITORY/blob/main/LICENSE"),
        ("#limits", "README.md", "index", "#limits"),
        ("https://a.b/c", "README.md", "index", "https://a.b/c"),
    ],
)
def test_links_lead_where_they_lead_in_the_repository(conf, link, source, docname, expected):
    expected = expected.replace("REPOSITORY", conf["REPOSITORY"])
    assert conf["relocate"](f"[x]({link})", source, docname) == f"[x]({expected})"
