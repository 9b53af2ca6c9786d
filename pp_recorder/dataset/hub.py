"""Upload a dataset to the Hugging Face Hub, with a card. Needs the extra [hub].

Example: pp-push datasets/pick_place me/franka-pick-place
"""

import glob
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from pp_recorder.command_line import DatasetFolder, Form, Options, Typed, parse
from pp_recorder.dataset import keys
from pp_recorder.dataset.card import is_edited, make_card
from pp_recorder.dataset.commit import LOCK, UNFINISHED
from pp_recorder.dataset.files import foreign_files, listed, require_inside
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error

_LOGIN = "log in with 'hf auth login', or set HF_TOKEN to a token that may write"
_LIBRARIES = {"huggingface_hub", "httpx", "httpcore", "requests"}
_LOG = logging.getLogger(__name__)

# Folders that hold the dataset and nothing else: what is gone here goes there, too.
_OWN_FOLDERS = (keys.DATA_FOLDER, keys.META_FOLDER, keys.VIDEOS_FOLDER)
IGNORED = [LOCK, f"{UNFINISHED}/**"]
# Those by older versions are links to the same videos; copies would double the upload.
_SECOND_NAMES = f"{keys.VIDEOS_FOLDER}/**/{keys.SECOND_NAMES}"


class HubError(OSError):
    """The Hub has refused a request."""


class HubUnreachableError(HubError):
    """The Hub does not answer, or not now."""


def push(root: Path, repo_id: str, private: bool = False, api: Any = None) -> str:
    """Upload a dataset and return its address.

    A tag with the name of its format, by which LeRobot finds a dataset on the Hub, moves to this
    upload. Files of an earlier upload that the dataset no longer has are removed; others than a
    dataset's stay. A README.md in the folder that somebody has edited is uploaded as it is. Files
    in the dataset's folders that are no part of it are not uploaded, except those beside
    `info.json`.

    Args:
        root: The dataset's directory.
        repo_id: "user/name".
        private: Hide it from others.
        api: A `huggingface_hub.HfApi`; default: one with the user's stored token.

    Raises:
        DatasetError: The directory is not a dataset, holds no episode, or has a link to a place
            outside of it.
        ImportError: huggingface_hub is not installed.
        ValueError: The repository's name is none.
        HubError: The Hub refused, or cannot be reached.
    """
    require_repo_id(repo_id)
    dataset = Dataset(root)
    if dataset.num_episodes == 0:
        raise DatasetError(f"{root} holds no episode; nothing was uploaded")
    ignored = _ignored(dataset)
    card = None if is_edited(dataset) else make_card(dataset, repo_id)
    if api is None:
        api = _make_api()
    with _hub_errors(f"{root} was not uploaded", f"try again: pp-push {root} {repo_id}"):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=str(root),
            ignore_patterns=ignored,
            delete_patterns=[f"{name}/**" for name in _OWN_FOLDERS],
        )  # fmt: skip
        if card is not None:
            api.upload_file(
                repo_id=repo_id, repo_type="dataset", path_or_fileobj=card.encode(),
                path_in_repo=keys.CARD_PATH,
            )  # fmt: skip
        _move_tag(api, repo_id)
    return f"https://huggingface.co/datasets/{repo_id}"


def _ignored(dataset: Dataset) -> list[str]:
    """Return patterns of the files that are not uploaded.

    Raises:
        DatasetError: A link leads outside the dataset, to what nobody may want to publish.
    """
    require_inside(dataset.root)
    foreign = foreign_files(dataset.root, dataset.info)
    beside = [name for name in foreign if Path(name).parent == Path(keys.META_FOLDER)]
    notes = {name for name in beside if not Path(name).name.startswith(".")}
    left_out = [name for name in foreign if name not in notes]
    if left_out:
        _LOG.warning(f"not uploaded, as no part of the dataset: {listed(left_out)}")
    are_videos = dataset.info.get("video_path") == keys.VIDEO_PATHS["per-episode"]
    second = [] if are_videos else [_SECOND_NAMES]
    return [*IGNORED, *second, *map(glob.escape, left_out)]


def require_ready(repo_id: str, api: Any = None) -> None:
    """Check what an upload needs, before hours of work; warn if the Hub cannot be reached now.

    Args:
        repo_id: "user/name".
        api: As in `push`.

    Raises:
        ValueError: The repository's name is none.
        ImportError: huggingface_hub is not installed.
        HubError: There is no token, or the Hub does not accept it.
    """
    require_library()
    require_repo_id(repo_id)
    try:
        with _hub_errors(f"nothing can be uploaded to {repo_id}", _LOGIN):
            (_make_api() if api is None else api).whoami()
    except HubUnreachableError as error:
        _LOG.warning(f"{error}; the dataset is collected first, and uploaded then")


def require_repo_id(repo_id: str) -> None:
    """Raise an error if there can be no repository with this name.

    Raises:
        ValueError: There can be none.
    """
    part = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    is_name = re.fullmatch(f"{part}/{part}", repo_id) and len(repo_id) <= 96
    if not is_name or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise ValueError(
            f"a repository on the Hub must be USER/NAME of letters, digits and single '-', '_' or "
            f"'.', of 96 characters at most, got {repo_id!r}; try me/franka-pick-place"
        )


def _move_tag(api: Any, repo_id: str) -> None:
    """Let the tag of the format name the newest commit."""
    tag, kind = keys.FORMAT_VERSION, "dataset"
    with suppress(Exception):  # there may be none; if it is still there, it cannot be created
        api.delete_tag(repo_id, tag=tag, repo_type=kind)
    api.create_tag(repo_id, tag=tag, repo_type=kind, exist_ok=False)


@contextmanager
def _hub_errors(what: str, then: str) -> Iterator[None]:
    """Turn an error of the Hub's library into one sentence.

    Some of them are no `OSError`, depending on the library's version.

    Args:
        what: What was not done.
        then: What to do.

    Raises:
        HubError: As described there.
    """
    try:
        yield
    except Exception as error:
        libraries = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
        is_file = isinstance(error, OSError) and error.filename is not None
        if is_file or not (isinstance(error, OSError) or libraries & _LIBRARIES):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        has_no_token = type(error).__name__ == "LocalTokenNotFoundError"
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if has_no_token or status in (401, 403):
            raise HubError(f"{what}: the Hub does not accept the token; {_LOGIN}") from error
        if status is None or status >= 500:
            raise HubUnreachableError(
                f"{what}: the Hub cannot be reached ({first_line}); {then}"
            ) from error
        raise HubError(f"{what}: the Hub refused ({first_line}); {then}") from error


def require_library() -> None:
    """Raise an error if a dataset cannot be uploaded.

    Raises:
        ImportError: huggingface_hub is not installed.
    """
    if find_spec("huggingface_hub") is None:
        raise ImportError(
            "uploading needs huggingface_hub; try \"pip install 'franka-pick-place[hub]'\""
        )


def _make_api() -> Any:
    require_library()
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]

    return HfApi()


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """The options of `pp-push`."""

    dataset: Annotated[DatasetFolder, Doc("the dataset")]
    repo_id: Annotated[str, Doc("where it goes"), Form.POSITIONAL, Typed("USER/NAME")]
    private: Annotated[bool, Doc("hide it from others")] = False


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = parse(
        PushOptions,
        argv,
        prog="pp-push",
        description="Upload a dataset to the Hugging Face Hub.",
        example="pp-push datasets/pick_place me/franka-pick-place",
    )
    try:
        raise_on_interrupt()
        print(push(options.dataset, options.repo_id, options.private))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted(f"{options.dataset} may be uploaded in part; push it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
