"""Parquet files as other programs write them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pp_recorder.dataset import tables
from pp_recorder.dataset.tables import DatasetError

VALUES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
UNEVEN = [[1.0], None, [2.0, 3.0]]
TEXTS = ["a", "b", "a"]


class Picture(pa.ExtensionType):
    """A registered extension type, as `datasets` has them."""

    def __init__(self):
        super().__init__(pa.list_(pa.float64()), "tests.picture")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls()


@pytest.fixture
def registered():
    pa.register_extension_type(Picture())
    yield
    pa.unregister_extension_type("tests.picture")


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float64()),
        pa.list_(pa.field("element", pa.float64(), nullable=False)),
        pa.list_view(pa.float64()),
        pa.large_list_view(pa.float64()),
    ],
    ids=str,
)
@pytest.mark.parametrize("values", [VALUES, UNEVEN, [[], [], []]], ids=["even", "uneven", "empty"])
def test_lists_are_lists(tmp_path, kind, values):
    path = write(tmp_path / "x.parquet", a=pa.array(values, kind))
    column = tables.read_table(path).column("a")
    assert column.type == pa.list_(pa.float64())
    assert column.to_pylist() == values


@pytest.mark.parametrize("kind", [pa.list_view(pa.int64()), pa.large_list(pa.int64())], ids=str)
def test_a_part_of_a_column_has_its_own_rows(kind):
    column = pa.chunked_array([pa.array([[1], [2, 3], None, [4]], kind).slice(1)])
    assert tables.to_plain(column).to_pylist() == [[2, 3], None, [4]]


def test_lists_of_one_length_keep_it(tmp_path):
    path = write(tmp_path / "x.parquet", a=pa.array(VALUES, pa.list_(pa.float64(), 2)))
    column = tables.read_table(path).column("a")
    assert (column.type, column.to_pylist()) == (pa.list_(pa.float64(), 2), VALUES)


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_texts_are_texts(tmp_path, kind):
    path = write(tmp_path / "x.parquet", a=pa.array(TEXTS, pa.string()).cast(kind))
    column = tables.read_table(path).column("a")
    assert (column.type, column.to_pylist()) == (pa.string(), TEXTS)


def test_extensions_are_what_they_store(tmp_path, registered):
    stored = pa.array(VALUES, pa.list_(pa.float64()))
    path = write(tmp_path / "x.parquet", a=pa.ExtensionArray.from_storage(Picture(), stored))
    assert pq.read_table(path).schema.field("a").type == Picture()
    column = tables.read_table(path).column("a")
    assert (column.type, column.to_pylist()) == (pa.list_(pa.float64()), VALUES)


def test_what_is_within_structures_is_plain(tmp_path):
    kind = pa.struct([("x", pa.large_list(pa.large_string())), ("y", pa.int64())])
    values = [{"x": ["a", "b"], "y": 1}, None, {"x": None, "y": 2}]
    path = write(tmp_path / "x.parquet", a=pa.array(values, kind))
    column = tables.read_table(path).column("a")
    assert column.type == pa.struct([("x", pa.list_(pa.string())), ("y", pa.int64())])
    assert column.to_pylist() == values


def test_only_wanted_columns_are_read(tmp_path):
    path = write(tmp_path / "x.parquet", **{"a": [1], "a.b": [2], "c": [3]})
    content = path.read_bytes()
    assert tables.read_table(path, "a".__eq__).column_names == ["a"]
    broken = content.replace(content[4:24], bytes(20), 1)  # the first column's page
    path.write_bytes(broken)
    assert tables.read_table(path, "c".__eq__).to_pydict() == {"c": [3]}
    with pytest.raises(DatasetError, match=r"x\.parquet cannot be read"):
        tables.read_table(path)


def test_truth_values_join_numbers(tmp_path):
    files = [tmp_path / "x.parquet", tmp_path / "y.parquet"]
    parts = [
        pa.table({"min": pa.array([[True]])}),
        pa.table({"min": pa.array([[0.5]]), "more": ["text"]}),
    ]
    assert tables.join(parts, files).to_pydict() == {"min": [[1.0], [0.5]], "more": [None, "text"]}


def test_types_that_do_not_fit_are_named(tmp_path):
    files = [tmp_path / "x.parquet", tmp_path / "y.parquet"]
    parts = [pa.table({"a": [1]}), pa.table({"a": ["text"]})]
    with pytest.raises(DatasetError, match=r"y\.parquet: the column a is of type string, in .*x"):
        tables.join(parts, files)


def test_bytes_do_not_tell_who_wrote_the_table(tmp_path):
    ours = pa.table({"a": pa.array(VALUES)})
    theirs = pq.ParquetFile(write(tmp_path / "x.parquet", a=ours.column("a"))).read()
    files = [tmp_path / "ours.parquet", tmp_path / "theirs.parquet"]
    for table, file in zip((ours, theirs), files, strict=True):
        pq.write_table(tables.with_plain_types(table, file), file)
    assert files[0].read_bytes() == files[1].read_bytes()
