"""Files under a URL: in S3, Google Cloud Storage, or any other store of pyarrow or fsspec."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

# File systems in which a file replaces an older one as a whole when its writing ends.
_ATOMIC_FILESYSTEMS = {"s3", "gcs", "abfs"}
# Saves two of three requests per file; older versions of pyarrow do not know it.
_S3_OPTION = "allow_delayed_open=true"
# s; Google's library would try for a quarter of an hour.
_GCS_OPTION = "retry_limit_seconds=10"


class StoreError(OSError):
    """A store cannot be read or written."""


class ObjectStore:
    """The files under a URL, by their names relative to it; each is written as a whole.

    Args:
        url: Such as s3://bucket/path, with pyarrow's options behind a question mark.

    Attributes:
        url: The same.

    Raises:
        ValueError: The URL cannot be used.
        ImportError: A library that it needs is not installed.
        StoreError: The store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if urlsplit(url).password:
            raise ValueError(
                "an output's URL must not hold a password, which would end up in logs; give "
                "credentials as the store's own tools take them, such as AWS_ACCESS_KEY_ID"
            )
        with self._store_errors("opened", (ImportError, ValueError)):
            self._files, root = _open(url)
        self._root = root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file, by name."""
        everything = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        with self._store_errors("listed"):
            found = self._files.get_file_info(everything)
        start = len(self._root) + 1
        return {f.path[start:]: f.size for f in found if f.type == fs.FileType.File}

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        with self._store_errors("read"):
            try:
                with self._files.open_input_stream(self._path(name), compression=None) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file."""
        with self._store_errors("written"):
            if self._files.type_name in _ATOMIC_FILESYSTEMS:
                self._write(self._path(name), content)
                return
            staged = self._path(f".part-{name.replace('/', '_')}")
            self._files.create_dir(self._path(name).rpartition("/")[0])
            self._write(staged, content)
            self._files.move(staged, self._path(name))

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        with self._store_errors("written"), suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def require_writable(self, resume: bool) -> None:
        """Raise an error unless a dataset can be created here, or continued.

        Args:
            resume: Continue what is here.

        Raises:
            FileExistsError: Something is here, and it is not to be resumed.
            StoreError: The store is out of reach, or read-only.
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
    def _store_errors(
        self, operation: str, passed_on: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """Turn every exception of the store's library into a `StoreError`.

        Args:
            operation: Past participle for the message, such as "read".
            passed_on: Exceptions that stay as they are.
        """
        try:
            yield
        except passed_on:
            raise
        except Exception as error:  # fsspec's libraries raise types of their own
            raise StoreError(
                f"{self.url} cannot be {operation}: {str(error) or type(error).__name__}; check "
                "the address, the credentials, and that the store answers"
            ) from error


def dataset_names(store: ObjectStore) -> list[str]:
    """Return the files of a dataset: all but leases and unfinished files."""
    return [name for name in store.sizes() if not name.startswith(".")]


def require_empty(store: ObjectStore) -> None:
    """Raise an error unless a store is empty.

    Raises:
        FileExistsError: Something is there already.
    """
    if dataset_names(store):
        raise FileExistsError(
            f"the output {store.url} is not empty; nothing was written. Choose another one, or "
            "continue an interrupted collection with --resume"
        )


def _open(url: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URL, and the path in it."""
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
