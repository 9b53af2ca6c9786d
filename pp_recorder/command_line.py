"""Command lines from frozen dataclasses: a field is the option, its type, its bounds and its help.

A subclass of `Options` is checked when it is made, by whoever makes it, so an invalid one does not
exist. `parse` makes one from words, with tyro, which is imported for that: worker processes have
options, too, and parse nothing. A field is declared once:

    num_episodes: Annotated[int, Ge(1), Doc("episodes in the dataset")] = 50
"""

import difflib
import io
import operator
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass, replace
from enum import Enum
from functools import cache
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt
from typing_extensions import Doc

from pp_recorder.output import describe_error, outlive_readers

DISTRIBUTION = "franka-pick-place"
PATH_TEXT = object()  # annotates texts that are paths, or may be

T = TypeVar("T", bound="Options")

_BOUNDS = {  # per kind of bound: the limit, what must hold, and how to say it
    Ge: (lambda bound: bound.ge, operator.ge, "be at least {}"),
    Gt: (lambda bound: bound.gt, operator.gt, "be more than {}"),
    Le: (lambda bound: bound.le, operator.le, "be at most {}"),
    Lt: (lambda bound: bound.lt, operator.lt, "be less than {}"),
}


class Form(Enum):
    """An annotation of how an option is typed."""

    POSITIONAL = "without its name"
    SWITCH = "without --no-"


@dataclass(frozen=True)
class Typed:
    """An annotation of how an option is typed.

    Attributes:
        metavar: The value in --help; default: by its type.
        aliases: Other names.
    """

    metavar: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """The annotation of a value that words stand for.

    Attributes:
        count: Number of words.
        metavar: The words in --help.
        to_value: Makes the value; raises ValueError for words that it cannot use.
        from_value: Makes words of a default.
        choices: The values that there are; None if there are others.
    """

    count: Literal[1, "*"]
    metavar: str
    to_value: Callable[[list[str]], Any]
    from_value: Callable[[Any], list[str]]
    choices: tuple[Any, ...] | None = None


class OptionError(ValueError):
    """An option has a value that it cannot have.

    Args:
        name: The field.
        problem: What is expected and what was found, to stand behind the name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command, as values. A `~` at the start of a path stands for the home.

    Raises:
        OptionError: A value is out of its bounds or not one of its choices.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            is_text = PATH_TEXT in get_args(hint)
            if is_text and value == "":
                raise OptionError(name, "must not be empty")
            if is_text or isinstance(value, Path):  # also after --output=
                object.__setattr__(self, name, _at_home(value))
            _check(name, value, hint)


def parse(
    cls: type[T],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    example: str,
) -> T:
    """Return the options that the words of a command line stand for.

    Args:
        cls: Which options.
        argv: The words; None takes the program's own.
        prog: The program's name.
        description: What the program does.
        example: A command line that works.

    Raises:
        SystemExit: With status 0 after --help, with 2 after a message about a word that is wrong.
    """
    outlive_readers()  # such as head
    text = f"{description}\n\nExample: {example}"
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word in ("-h", "--help") or word.startswith("--tyro-") for word in words):
        import tyro

        tyro.cli(_twin(cls, for_help=True), prog=prog, description=text, args=words)
    try:
        unchecked = _read(cls, prog, words)
        if unchecked.version:
            print(f"{prog} {version()}")
            raise SystemExit(0)
        return cls(**{f.name: getattr(unchecked, f.name) for f in fields(cls)})
    except (OptionError, _WordError) as error:
        fail(prog, f"{flag(error.name)} {error.problem}")
    except ValueError as error:
        fail(prog, error)


def version() -> str:
    """Return the version of the distribution, or that it is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


def fail(prog: str, error: object) -> NoReturn:
    """End the program with status 2, before it has done anything.

    Raises:
        SystemExit: Always.
    """
    print(f"{prog}: error: {describe_error(error)}", file=sys.stderr)
    raise SystemExit(2)


def select(cls: type[T], options: Options, **changes: Any) -> T:
    """Return options of another kind: the fields that both have, and the changes.

    Raises:
        ValueError: The result is not valid.
    """
    names = {f.name for f in fields(cls)} & {f.name for f in fields(options)}
    return cls(**{**{name: getattr(options, name) for name in names}, **changes})


def from_names(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return the options with these values by name.

    Raises:
        OptionError: There is no such option; or see `Options`.
    """
    names = [f.name for f in fields(cls)]
    for name in values.keys() - set(names):
        raise OptionError(name, f"is no option; {suggest(name, names)}")
    return cls(**values)


def suggest(name: str, names: Sequence[str]) -> str:
    """Return a question for the nearest of the names, or a list of all if none is near."""
    return did_you_mean(name, names) or f"there are {', '.join(names)}"


def did_you_mean(word: str, names: Collection[str]) -> str:
    """Return a question for the nearest of the names, or "" if none is near."""
    nearest = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else ""


def documentation(cls: type, name: str) -> str:
    """Return the help text of a field."""
    hint = _hints(cls)[name]
    return next((part.documentation for part in get_args(hint) if isinstance(part, Doc)), "")


def flag(name: str) -> str:
    """Return a field's name as it is typed on a command line."""
    return f"--{name.replace('_', '-')}"


def one_of(choices: Collection[str]) -> Words:
    """Return the annotation of a text that must be one of several."""
    metavar = "{" + ",".join(choices) + "}"
    return Words(1, metavar, lambda words: words[0], lambda value: [str(value)], tuple(choices))


def some_of(choices: Collection[str]) -> Words:
    """Return the annotation of several texts, between which are spaces or commas.

    Whoever has the field checks them.
    """
    return Words(
        "*",
        "{" + ",".join(choices) + "} ...",
        lambda words: tuple(name for word in words for name in word.split(",")),
        lambda value: list(value or ()),
    )


def text(parse_text: Callable[[str], Any], metavar: str) -> Words:
    """Return the annotation of a value that is made from one word.

    Args:
        parse_text: Makes it; raises ValueError for a word that it cannot use.
        metavar: The word in --help.
    """
    return Words(1, metavar, lambda words: parse_text(words[0]), lambda value: [str(value)])


def parse_pixels(word: str) -> int | tuple[int, int]:
    """Return the width and height of images: 512 for both, or 640x480.

    Raises:
        ValueError: The word is neither, or a side has no pixel.
    """
    width, both, height = word.partition("x")
    try:
        sides = [int(side) for side in ((width, height) if both else (width,))]
    except ValueError:
        raise ValueError(f"must be pixels, such as 512 or 640x480, got {word!r}") from None
    if min(sides) < 1:
        raise ValueError(f"must be at least 1, got {min(sides)}")
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def parse_path(word: str) -> Path:
    """Return a path.

    Raises:
        ValueError: The word is empty, as of a variable that is not set: that would be this folder.
    """
    if not word:
        raise ValueError("must not be empty; this folder is .")
    return Path(word)


def parse_location(word: str) -> Path | str:
    """Return a folder, or the URL of one in an object store."""
    return word if "://" in word else parse_path(word)


def parse_folder(word: str) -> Path:
    """Return a folder, for a program that cannot read from an object store.

    Raises:
        ValueError: The word is a URL.
    """
    if "://" in word:
        raise ValueError(f"must be a folder, got {word}; copy it to one first (docs/dataset.md)")
    return parse_path(word)


Folder = Annotated[Path, text(parse_folder, "DIR")]
DatasetFolder = Annotated[Path, text(parse_folder, "DATASET"), Form.POSITIONAL]
Pixels = Annotated[int | tuple[int, int], text(parse_pixels, "PIXELS")]


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of the fields, which take milliseconds to resolve."""
    return get_type_hints(cls, include_extras=True)


class _WordError(Exception):
    """A word cannot be the value of an option; unlike a ValueError, tyro lets it pass."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem


def _twin(cls: type[Options], for_help: bool) -> type:
    """Return a twin of the class for tyro, with --version.

    Unless it is for --help, it takes any values and none, so that one place reports what is wrong.
    """
    import tyro

    hints = _hints(cls)
    twins: list[tuple[str, Any, Any]] = []
    for option in fields(cls):
        words = documentation(cls, option.name)  # older versions of tyro do not read Doc
        behavior = "" if option.default is None else None  # the words say what None means
        hint, default = _as_one_word(option.name, hints[option.name]), _default(option)
        if not for_help:
            several = get_origin(get_args(hint)[0]) is tuple
            default = (() if several else None) if default is MISSING else default
            hint = _without_checks(option.name, hint)
        settings = tyro.conf.arg(help=words, help_behavior_hint=behavior)
        twins.append((option.name, Annotated[_for_tyro(hint), settings], field(default=default)))
    settings = tyro.conf.arg(help="print the version and exit", help_behavior_hint="")
    version_flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, settings]
    twins.append(("version", version_flag, field(default=False)))
    return make_dataclass(cls.__name__, twins, kw_only=True, frozen=True)


def _as_one_word(name: str, hint: Any) -> Any:
    """Return the hint with how a word becomes the value, where tyro would decide it."""
    kind, *annotations = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kinds = [part for part in get_args(kind) if part is not NoneType]
    if len(kinds) == 1 and NoneType in get_args(kind):
        kind = kinds[0]
    if any(isinstance(part, Words) for part in annotations):
        return hint
    if get_origin(kind) is Literal:
        return Annotated[hint, one_of(get_args(kind))]
    if kind in _WORDS:
        return Annotated[hint, text(*_WORDS[kind])]
    return hint


def _without_checks(name: str, hint: Any) -> Any:
    """Return the hint with a word that cannot be the value reported by name."""

    def reporting(kind: Words) -> Words:
        def to_value(words: Any) -> Any:
            if words and isinstance(words[0], list):  # so an argument without a name may come
                (words,) = words
            if kind.count == 1 and not words:
                return None
            try:
                return kind.to_value(words)
            except ValueError as error:
                raise _WordError(name, str(error)) from None

        return replace(kind, to_value=to_value, choices=None)

    _, *annotations = get_args(hint)
    is_words = [isinstance(part, Words) for part in annotations]
    parts = [reporting(p) if there else p for p, there in zip(annotations, is_words, strict=True)]
    return Annotated[(Any, *parts)] if any(is_words) else hint


def _for_tyro(hint: Any) -> Any:
    """Return the hint with tyro's annotations in place of ours."""
    import tyro
    from tyro.constructors import PrimitiveConstructorSpec

    def translate(part: Any) -> Any:
        if isinstance(part, Words):
            return PrimitiveConstructorSpec(
                nargs=part.count,
                metavar=part.metavar,
                instance_from_str=part.to_value,
                is_instance=lambda value: True,  # `Options` checks
                str_from_instance=part.from_value,
                choices=part.choices,
            )
        if isinstance(part, Typed):
            return tyro.conf.arg(metavar=part.metavar, aliases=part.aliases or None)
        forms = {
            Form.POSITIONAL: tyro.conf.Positional,
            Form.SWITCH: tyro.conf.FlagCreatePairsOff,
        }
        return forms[part] if isinstance(part, Form) else part

    if get_origin(hint) is not Annotated:
        return hint
    kind, *annotations = get_args(hint)
    return Annotated[(kind, *map(translate, annotations))]


def _parse_int(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"must be a whole number, got {word!r}") from None


def _parse_float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"must be a number, got {word!r}") from None


_WORDS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (_parse_int, "INT"),
    float: (_parse_float, "FLOAT"),
    str: (str, "STR"),
    Path: (parse_path, "PATH"),
}


def _read(cls: type[Options], prog: str, words: list[str]) -> Any:
    """Return the options that words stand for, and `version`, as values that are not checked.

    Raises:
        ValueError: A word is no option, or an option or its value is missing.
        _WordError: A word cannot be the value of its option.
    """
    import tyro

    twin, said = _twin(cls, for_help=False), io.StringIO()
    try:
        with redirect_stderr(said):
            values, unknown = tyro.cli(twin, prog=prog, args=words, return_unknown_args=True)
    except SystemExit:
        raise ValueError(f"{_first_paragraph(said.getvalue())} ({prog} --help)") from None
    if unknown:
        raise ValueError(_describe_unknown(unknown, twin, prog))
    if not values.version:
        _require_all(values, cls, prog)
    return values


def _require_all(values: Any, cls: type[Options], prog: str) -> None:
    """Raise an error for the first option that must be given and was not."""
    hints = _hints(cls)
    for option in fields(cls):
        if _default(option) is MISSING and getattr(values, option.name) is None:
            is_word = Form.POSITIONAL in get_args(hints[option.name])
            name = option.name.upper() if is_word else flag(option.name)
            what = documentation(cls, option.name)
            raise ValueError(f"{name} is missing: {what} ({prog} --help)")


def _describe_unknown(unknown: list[str], twin: type, prog: str) -> str:
    """Say which word means nothing, and what it may stand for."""
    word = next((word for word in unknown if word.startswith("-")), None)
    if word is None:
        return f"{unknown[0]!r} is not expected; options begin with -- ({prog} --help)"
    word = word.partition("=")[0]
    names = ["help", *(option.name for option in fields(twin))]
    nearest = did_you_mean(word, list(map(flag, names)))
    return f"there is no option {word}; {nearest or f'see {prog} --help'}"


def _first_paragraph(box: str) -> str:
    """Return what tyro says in a box, up to the first ruler, as one line."""
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    ruler = next((k for k, line in enumerate(lines) if line.startswith("─")), len(lines))
    return " ".join(lines[:ruler]).rstrip(".")


def _at_home(path: Any) -> Any:
    """Return a path with the home in place of `~`; anything else, and unknown users, as it is."""
    if isinstance(path, tuple):
        return tuple(map(_at_home, path))
    return type(path)(os.path.expanduser(path)) if isinstance(path, (str, Path)) else path


def _default(of: Field[Any]) -> Any:
    return of.default_factory() if of.default_factory is not MISSING else of.default


def _check(name: str, value: Any, hint: Any) -> None:
    if value is None or get_origin(hint) is not Annotated:
        return
    kind, *annotations = get_args(hint)
    if get_origin(kind) is Literal:
        _require_choice(name, value, get_args(kind))
    for annotation in annotations:
        if isinstance(annotation, Interval):
            _require_interval(name, value, annotation)
        elif type(annotation) in _BOUNDS:
            _require_bound(name, value, annotation)
        elif isinstance(annotation, Words) and annotation.choices:
            _require_choice(name, value, annotation.choices)


def _require_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    if value not in choices:
        known = [str(choice) for choice in choices]
        nearest = did_you_mean(str(value), known)
        problem = f"must be one of {', '.join(known)}, got {value!r}"
        raise OptionError(name, f"{problem}; {nearest}" if nearest else problem)


def _require_interval(name: str, value: Any, interval: Interval) -> None:
    try:
        for bound in interval:
            _require_bound(name, value, bound)
    except OptionError:
        if interval.ge is None or interval.le is None:
            raise
        problem = f"must be from {interval.ge} to {interval.le}, got {value}"
        raise OptionError(name, problem) from None


def _require_bound(name: str, value: Any, bound: Any) -> None:
    limit_of, holds, words = _BOUNDS[type(bound)]
    limit = limit_of(bound)
    try:
        is_within = holds(value, limit)
    except TypeError:
        raise OptionError(name, f"must be a number, got {value!r}") from None
    if not is_within:
        words = "not be negative" if bound == Ge(0) else words.format(limit)
        raise OptionError(name, f"must {words}, got {value}")
