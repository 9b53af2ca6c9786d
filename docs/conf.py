"""How Sphinx makes the site of these pages and of the docstrings: `make docs`.

The README, the changes and the contributor's page lie outside docs/, and the tables of options are
made from the classes that the command lines derive from; comments in the pages say where they go.
"""

import re
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pp_env
from pp_recorder.command_line import documentation, flag

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/frankapickplace/frankapickplace"
PAGES = {"README.md": "index", "CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing"}

project = "FrankaPickPlace"
author = "The FrankaPickPlace authors"
release = pp_env.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "py:obj"  # `names` in docstrings are links where they can be
highlight_language = "none"
maximum_signature_line_length = 80
smartquotes = False  # they would turn -- into a dash

autoclass_content = "class"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_custom_sections = ["Task", "Randomization"]

myst_heading_anchors = 4

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = project
html_theme_options = {
    "github_url": REPOSITORY,
    "navbar_align": "left",
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "Apache-2.0"  # noqa: A001
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

_PICTURES = "https://raw.githubusercontent.com/frankapickplace/frankapickplace/main/"
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_PAGE = re.compile(r"^<!-- page: (\S+) -->$", re.MULTILINE)
_OPTIONS = re.compile(r"^<!-- options: ([\w.]+):(\w+) -->$", re.MULTILINE)


def setup(app: Any) -> None:
    """Have Sphinx call `complete` for every page that it reads."""
    app.connect("source-read", complete)


def complete(app: Any, docname: str, source: list[str]) -> None:
    """Put in what the comments of a page name, and lead links out of docs/ to the repository."""
    text = relocate(source[0], f"docs/{docname}.md", docname)
    text = _PAGE.sub(lambda found: relocate(_read(found[1]), found[1], docname), text)
    source[0] = _OPTIONS.sub(lambda found: option_table(found[1], found[2]), text)


def relocate(markdown: str, source: str, docname: str) -> str:
    """Return a page whose links, which lead from its file, lead from its place on the site.

    Args:
        markdown: The page.
        source: Its file in the repository.
        docname: Its place on the site.
    """

    def lead(found: re.Match[str]) -> str:
        path, sharp, anchor = found[2].partition("#")
        if path.startswith(_PICTURES):  # the README's, for the package index
            source_folder = relpath(".", str(PurePosixPath(source).parent))
            path = f"{source_folder}/{path.removeprefix(_PICTURES)}"
        if not path or "://" in path:
            return found[0]
        target = normpath(str(PurePosixPath(source).parent / path))
        if target == "docs/decisions":
            target = "docs/decisions/index.md"
        if target in PAGES or target.startswith("docs/"):
            place = f"{PAGES[target]}.md" if target in PAGES else target.removeprefix("docs/")
            place = relpath(place, str(PurePosixPath(docname).parent))
        else:
            place = f"{REPOSITORY}/blob/main/{target}"
        return f"{found[1]}{place}{sharp}{anchor}{found[3]}"

    return _LINK.sub(lead, markdown)


def _read(name: str) -> str:
    return (ROOT / name).read_text()


def option_table(module: str, name: str) -> str:
    """Return a table of a command's options."""
    cls = getattr(import_module(module), name)
    hints = get_type_hints(cls, include_extras=True)
    rows = [
        f"| {_typed(field, hints[field.name])} | "
        f"{_escaped(documentation(cls, field.name))}{_default(field)} |"
        for field in fields(cls)
    ]
    return "\n".join(["| option | |", "|---|---|", *rows])


def _typed(field: Field[Any], hint: Any) -> str:
    """Return an option as it is typed, with its value."""
    kind, *annotations = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if kind is bool:
        name = flag(field.name)
        return f"`--no-{name[2:]}`" if field.default is True else f"`{name}`"
    metavars = [m for part in annotations if (m := getattr(part, "metavar", None))]
    if not (choices := _choices(kind, annotations)):
        word = metavars[-1] if metavars else _type_name(kind)
        choices = word.strip("{} .").split(",")
    value = ", ".join(f"`{_escaped(str(choice))}`" for choice in choices)
    is_word = any("POSITIONAL" in str(part).upper() for part in annotations)
    return value if is_word else f"`{flag(field.name)}` {value}"


def _choices(kind: Any, annotations: list[Any]) -> tuple[Any, ...]:
    for part in [kind, *get_args(kind)]:
        if get_origin(part) is Literal:
            return get_args(part)
    return next((c for part in annotations if (c := getattr(part, "choices", None))), ())


def _type_name(kind: Any) -> str:
    names = [part.__name__ for part in (kind, *get_args(kind)) if isinstance(part, type)]
    return next((name.upper() for name in names if name != "NoneType"), "VALUE")


def _default(field: Field[Any]) -> str:
    value = None if field.default is MISSING else field.default
    if value is None or isinstance(value, bool):
        return ""
    words = value if isinstance(value, tuple) else (value,)
    return f"; default `{' '.join(map(str, words))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
