"""Files under a URL: in S3, Google Cloud Storage, or what else pyarrow or fsspec has a name for."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

# Where a file that is written anew is replaced as a whole when its writing ends.
_WHOLE = {"s3", "gcs", "abfs"}
# Spares two of three requests per file; older versions of pyarrow do not know it.
_S3_OPTION = "allow_delayed_open=true"
# s; Google's library would go on for a quarter of an hour.
_GCS_OPTION = "retry_limit_seconds=10"


class StoreError(OSError):
    """A store cannot be read or written."""


class ObjectStore:
    """The files under a URL, by their names relative to it; each is written as a whole.

    Args:
        url: Such as s3://bucket/path, with pyarrow's options behind a question mark.

    Raises:
        ValueError: It is not a URL that can be used.
        ImportError: What it needs is not installed.
        StoreError: It cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if urlsplit(url).password:
            raise ValueError(
                "an output's URL must not hold a password, which would end up in logs; give "
                "credentials as the store's own tools take them, such as AWS_ACCESS_KEY_ID"
            )
        with self._explained("opened", (ImportError, ValueError)):
            self._files, root = _open(url)
        self._root = root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every file, by name."""
        everything = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        with self._explained("listed"):
            found = self._files.get_file_info(everything)
        start = len(self._root) + 1
        return {f.path[start:]: f.size for f in found if f.type == fs.FileType.File}

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        with self._explained("read"):
            try:
                with self._files.open_input_stream(self._path(name), compression=None) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces a file."""
        with self._explained("written"):
            if self._files.type_name in _WHOLE:
                self._write(self._path(name), content)
                return
            aside = self._path(f".part-{name.replace('/', '_')}")
            self._files.create_dir(self._path(name).rpartition("/")[0])
            self._write(aside, content)
            self._files.move(aside, self._path(name))

    def delete(self, name: str) -> None:
        """Removes a file, if there is one."""
        with self._explained("written"), suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def require_writable(self, resume: bool) -> None:
        """Checks that a dataset can be begun here, or gone on with.

        Raises:
            FileExistsError: There is one, or anything else, and it is not to be resumed.
            StoreError: The store is out of reach, or may not be written to.
        """
        if not resume:
            require_empty(self)
        self.write(".probe", b"")
        self.delete(".probe")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _write(self, path: str, content: bytes) -> None:
        with self._files.open_output_stream(path, compression=None) as file:
            file.write(content)

    @contextmanager
    def _explained(self, what: str, clear: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Turns whatever the store's library raises, but what is clear, into one kind of error."""
        try:
            yield
        except clear:
            raise
        except Exception as error:  # fsspec's libraries have kinds of their own
            raise StoreError(
                f"{self.url} cannot be {what}: {str(error) or type(error).__name__}; check the "
                "address, the credentials, and that the store answers"
            ) from error


def dataset_names(store: ObjectStore) -> list[str]:
    """The files that are not notes of ours."""
    return [name for name in store.sizes() if not name.startswith(".")]


def require_empty(store: ObjectStore) -> None:
    """Checks that a dataset may be begun in a store.

    Raises:
        FileExistsError: Something is there already.
    """
    if dataset_names(store):
        raise FileExistsError(
            f"the output {store.url} is not empty; nothing was written. Choose another one, or "
            "continue an interrupted collection with --resume"
        )


def _open(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URL, and the path in it."""
    scheme = urlsplit(url).scheme
    option = {"s3": _S3_OPTION, "gs": _GCS_OPTION, "gcs": _GCS_OPTION}.get(scheme)
    if option and option.partition("=")[0] not in url:
        with suppress(pa.ArrowInvalid):
            return fs.FileSystem.from_uri(f"{url}{'&' if '?' in url else '?'}{option}")
    try:
        return fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
    try:
        from fsspec.core import url_to_fs  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{scheme}:// is not known to pyarrow; fsspec may know it, try: pip install "
            "'franka-pick-place[fsspec]'"
        ) from error
    files, path = url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(files)), path
