"""Parquet tables as any program writes them, read into plain types.

Others write the same numbers and texts as large lists, list views, dictionaries or extension types,
and statistics of truth values as truth values.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset.paths import table_path

_MANY_ROWS = 10_000  # more than of an episode, whose hundred columns threads would only delay
_VALUES_PER_BYTE = 8  # of meta/episodes without statistics; those of LeRobot and ours have 0.2


class DatasetError(ValueError):
    """A directory is not a dataset that can be read; the message says why and what to do."""


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DatasetError: The file cannot be read.
    """
    return _open(path)[1]


def require_plausible(path: Path, wanted: Callable[[str], bool]) -> None:
    """Check that a file is large enough for the values that it claims to have.

    A constant column of a thousand million rows takes no space in the file, but all of the memory.

    Raises:
        DatasetError: It is too small, or cannot be read.
    """
    names, size = set(filter(wanted, column_names(path))), path.stat().st_size
    try:
        found = pq.ParquetFile(table_path(path)).metadata
        columns = [found.schema.column(k).path.split(".list.")[0] for k in range(found.num_columns)]
        chosen = [k for k, name in enumerate(columns) if name in names]
        groups = map(found.row_group, range(found.num_row_groups))
        count = sum(group.column(k).num_values for group in groups for k in chosen)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {_first_line(error)}") from error
    if max(count, found.num_rows) > _VALUES_PER_BYTE * size:
        raise DatasetError(f"{path} claims {found.num_rows} rows, {count} values, in {size} bytes")


def read_table(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> pa.Table:
    """Return a file's columns, or those wanted by name, in plain types.

    Raises:
        DatasetError: The file cannot be read.
    """
    file, names = _open(path)
    names = list(filter(wanted, names))
    try:
        # pyarrow takes "a" for "a.b", too
        has_many = file.metadata.num_rows > _MANY_ROWS
        table = file.read(names, use_threads=has_many).select(names)
        if not _is_plain(table.schema):
            return pa.table({name: to_plain(table.column(name)) for name in names})
        return pa.table(dict(zip(names, table.columns, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {_first_line(error)}") from error


def join(parts: Sequence[pa.Table], files: Sequence[Path]) -> pa.Table:
    """Return the rows of all tables; a column that a table lacks is empty there.

    Args:
        parts: In plain types.
        files: Where they are from.

    Raises:
        DatasetError: A column has types that do not fit together.
    """
    schemas = [part.schema for part in parts]
    if all(one.equals(other) for one, other in pairwise(schemas)):
        return conform(pa.concat_tables(parts), common_schema(schemas[:1], files[:1]))
    schema = common_schema(schemas, files)
    return pa.concat_tables([conform(part, schema) for part in parts])


def common_schema(schemas: Sequence[pa.Schema], files: Sequence[Path]) -> pa.Schema:
    """Return the schema that holds the rows of all files.

    Raises:
        DatasetError: A column has types that do not fit together.
    """
    common: dict[str, tuple[pa.DataType, Path]] = {}
    for schema, file in zip(schemas, files, strict=True):
        for field in schema:
            found = plain_type(field.type)
            kind, first = common.get(field.name, (found, file))
            unified = _unify(kind, found)
            if unified is None:
                raise DatasetError(
                    f"{file}: the column {field.name} is of type {found}, in {first} of type {kind}"
                )
            common[field.name] = unified, first
    return pa.schema([(name, kind) for name, (kind, _) in common.items()])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a common schema; those that it lacks are empty.

    Raises:
        DatasetError: A value does not fit.
    """
    columns, positions = [], {name: i for i, name in enumerate(table.column_names)}
    for field in schema:
        if field.name in positions:
            try:
                columns.append(table.column(positions[field.name]).cast(field.type))
            except pa.ArrowException as error:
                raise DatasetError(
                    f"the column {field.name} does not fit {field.type}: {_first_line(error)}"
                ) from error
        else:
            columns.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
    return pa.table(columns, schema=schema)


def with_plain_types(table: pa.Table, file: Path) -> pa.Table:
    """Return a table with plain types, in which also the items of lists have pyarrow's own name."""
    plain = conform(table, common_schema([table.schema], [file]))
    metadata = table.schema.metadata
    return plain.replace_schema_metadata(metadata) if metadata else plain


def to_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without large lists, list views, dictionaries and extension types."""
    kind = plain_type(column.type)
    if kind == column.type:
        return column
    return pa.chunked_array([_plain_array(chunk) for chunk in column.chunks], type=kind)


def _is_plain(schema: pa.Schema) -> bool:
    """Return whether `to_plain` would leave every column as it is, for all that is known."""
    try:
        return _has_plain_types(schema)
    except TypeError:  # others' extension types need not be hashable
        return False


@lru_cache
def _has_plain_types(schema: pa.Schema) -> bool:
    return all(plain_type(kind) == kind for kind in schema.types)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `to_plain` gives to a column of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_large_string(kind) or str(kind) == "string_view":
        return pa.string()
    if pa.types.is_large_binary(kind) or str(kind) == "binary_view":
        return pa.binary()
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Return True for the two plain types of lists."""
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    """Return True for numbers and truth values."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _open(path: Path) -> tuple[pq.ParquetFile, list[str]]:
    """Open a file; return it and the names of its columns.

    Raises:
        DatasetError: It cannot be read.
    """
    if not path.is_file():
        raise DatasetError(f"{path} cannot be read: it is no file")  # reading a pipe would wait
    try:
        file = pq.ParquetFile(table_path(path))
        return file, file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {_first_line(error)}") from error


def _plain_array(array: pa.Array) -> pa.Array:
    """Return an array in its plain type; not by a cast, which spoils list views (pyarrow 26)."""
    kind = plain_type(array.type)
    if kind == array.type:
        return array
    if isinstance(array, pa.ExtensionArray):
        return _plain_array(array.storage)
    if pa.types.is_struct(kind):
        parts = [_plain_array(part) for part in array.flatten()]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())
    if is_list(kind):
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = _plain_array(array.flatten())
        lists = pa.ListArray.from_arrays(offsets, values, mask=array.is_null())
        return lists.cast(kind)
    return array.cast(kind)


def _is_list(kind: pa.DataType) -> bool:
    views = ("list_view", "large_list_view")
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or str(kind).startswith(views)


def _unify(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both, or None."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_list(one) and is_list(other):
        inner = _unify(one.value_type, other.value_type)
        sizes = {getattr(kind, "list_size", None) for kind in (one, other)}
        size = sizes.pop() if len(sizes) == 1 else None
        return None if inner is None else pa.list_(inner, -1 if size is None else size)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {f.name: f.type for f in one}
        for field in other:
            inner = _unify(fields.get(field.name, pa.null()), field.type)
            if inner is None:
                return None
            fields[field.name] = inner
        return pa.struct(list(fields.items()))
    if is_number(one) and is_number(other):
        if pa.types.is_integer(one) and pa.types.is_integer(other):
            return pa.int64()
        return pa.float64()
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
