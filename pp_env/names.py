"""Several names in one text, which can be batched whatever their number; and names misspelt."""

import difflib
from collections.abc import Iterable, Iterator

_SEPARATOR = ", "


class Names(str):
    """Names joined by ", "; empty for none. Iterating gives the names, not the characters.

    A list would be as long as there are names, and lists of different lengths form no array.
    """

    __slots__ = ()

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Return the joined names, none of which has a comma."""
        return cls(_SEPARATOR.join(names))

    def __iter__(self) -> Iterator[str]:
        return iter(self.split(_SEPARATOR) if self else ())

    def __contains__(self, key: object) -> bool:
        return key in tuple(self)


def did_you_mean(words: Iterable[object], known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for the first word that is near one of the names, or ""."""
    names = list(known)
    for word in map(str, words):
        if word not in names and (near := difflib.get_close_matches(word, names, n=1)):
            return f"; did you mean {near[0]}?"
    return ""
