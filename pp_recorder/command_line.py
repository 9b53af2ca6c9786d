"""Types of command-line options; each says what it expected."""

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def pixels(text: str) -> int | tuple[int, int]:
    """Width and height of pictures: 512 for both, or 640x480."""
    width, both, height = text.partition("x")
    if not both or width == height:
        return positive(width)
    return positive(width), positive(height)


def not_negative(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def place(text: str) -> Path | str:
    """A folder, or the URL of one in a store."""
    return text if "://" in text else Path(text)


def folder(text: str) -> Path:
    """A folder, for what cannot read from a store."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"must be a folder, got {text}; copy it to one first (docs/dataset.md)"
        )
    return Path(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {number}")
    return number
