"""Command lines from frozen dataclasses: a field is the option, its type, its bounds and its help.

A subclass of `Options` is checked when it is made, by whoever makes it, so an invalid one does not
exist. `parse` makes one from words, with tyro. A field is declared once:

    num_episodes: Annotated[int, Ge(1), Doc("episodes in the dataset")] = 50
"""

import difflib
import operator
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro
from annotated_types import Ge, Gt, Interval, Le, Lt
from typing_extensions import Doc
from tyro.constructors import PrimitiveConstructorSpec

T = TypeVar("T", bound="Options")

_BOUNDS = {  # per kind of bound: the limit, what must hold, and how to say it
    Ge: (lambda bound: bound.ge, operator.ge, "be at least {}"),
    Gt: (lambda bound: bound.gt, operator.gt, "be more than {}"),
    Le: (lambda bound: bound.le, operator.le, "be at most {}"),
    Lt: (lambda bound: bound.lt, operator.lt, "be less than {}"),
}


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
    """The options of a command, as values.

    Raises:
        OptionError: A value is out of its bounds or not one of its choices.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            _check(name, getattr(self, name), hint)


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
    text = f"{description}\n\nExample: {example}"
    words = list(sys.argv[1:] if argv is None else argv)
    unchecked = tyro.cli(_without_checks(cls), prog=prog, description=text, args=words)
    try:
        return cls(**{f.name: getattr(unchecked, f.name) for f in fields(cls)})
    except OptionError as error:
        fail(prog, f"{flag(error.name)} {error.problem}")
    except ValueError as error:
        fail(prog, error)


def fail(prog: str, error: object) -> NoReturn:
    """End the program with status 2, before it has done anything.

    Raises:
        SystemExit: Always.
    """
    print(f"{prog}: error: {error}", file=sys.stderr)
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
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"


def documentation(cls: type, name: str) -> str:
    """Return the help text of a field."""
    hint = _hints(cls)[name]
    return next((part.documentation for part in get_args(hint) if isinstance(part, Doc)), "")


def flag(name: str) -> str:
    """Return a field's name as it is typed on a command line."""
    return f"--{name.replace('_', '-')}"


def one_of(choices: Collection[str]) -> PrimitiveConstructorSpec[str]:
    """Return the annotation of a text that must be one of several."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
        choices=tuple(choices),
    )


def some_of(choices: Collection[str]) -> PrimitiveConstructorSpec[tuple[str, ...]]:
    """Return the annotation of several texts, between which are spaces or commas.

    Whoever has the field checks them.
    """
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="{" + ",".join(choices) + "} ...",
        instance_from_str=lambda words: tuple(name for word in words for name in word.split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: list(value or ()),
    )


def text(parse_text: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    """Return the annotation of a value that is made from one word.

    Args:
        parse_text: Makes it; raises ValueError for a word that it cannot use.
        metavar: The word in --help.
    """
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse_text(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def parse_pixels(word: str) -> int | tuple[int, int]:
    """Return the width and height of images: 512 for both, or 640x480.

    Raises:
        ValueError: The word is neither, or a side has no pixel.
    """
    width, both, height = word.partition("x")
    sides = [int(side) for side in ((width, height) if both else (width,))]
    if min(sides) < 1:
        raise ValueError(f"must be at least 1, got {min(sides)}")
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def parse_location(word: str) -> Path | str:
    """Return a folder, or the URL of one in an object store."""
    return word if "://" in word else Path(word)


def parse_folder(word: str) -> Path:
    """Return a folder, for a program that cannot read from an object store.

    Raises:
        ValueError: The word is a URL.
    """
    if "://" in word:
        raise ValueError(f"must be a folder, got {word}; copy it to one first (docs/dataset.md)")
    return Path(word)


Folder = Annotated[Path, text(parse_folder, "DIR")]
DatasetFolder = Annotated[Path, text(parse_folder, "DATASET"), tyro.conf.Positional]
Pixels = Annotated[int | tuple[int, int], text(parse_pixels, "PIXELS")]


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of the fields, which take milliseconds to resolve."""
    return get_type_hints(cls, include_extras=True)


def _without_checks(cls: type[Options]) -> type:
    """Return a twin of the class that takes any values, so that one place reports what is wrong."""
    hints = _hints(cls)
    twins = []
    for option in fields(cls):
        words = documentation(cls, option.name)  # older versions of tyro do not read Doc
        behavior = "" if option.default is None else None  # the words say what None means
        settings = tyro.conf.arg(help=words, help_behavior_hint=behavior)
        hint = Annotated[hints[option.name], settings]
        twins.append((option.name, hint, field(default=_default(option))))
    return make_dataclass(cls.__name__, twins, kw_only=True, frozen=True)


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
        elif isinstance(annotation, PrimitiveConstructorSpec) and annotation.choices:
            _require_choice(name, value, annotation.choices)


def _require_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    if value not in choices:
        raise OptionError(name, f"must be one of {', '.join(map(str, choices))}, got {value!r}")


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
