"""What LeRobot's tools make of a dataset, with pyarrow alone: compared once with the real ones."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

DATA = "data/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
BOOL = pa.bool_()
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def edit(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def put(table, name, values):
    """Replace a column, or append one."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if name not in table.column_names:
        return table.append_column(name, array)
    return table.set_column(table.schema.get_field_index(name), name, array)


def edit_info(root, **changes):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        info[key] = {**info[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(info, indent=4))


def write_tasks(root, texts):
    table = pa.table({"task_index": range(len(texts)), "task": texts})
    metadata = pq.read_schema(root / TASKS).metadata
    pq.write_table(table.replace_schema_metadata(metadata), root / TASKS)


def modify_tasks(root):
    """Give each episode a text of its own, numbered alphabetically, as `modify_tasks` does."""
    count = len(pq.read_table(root / EPISODES))
    texts = [f"{'zyx'[k]}: number {k}" for k in range(count)]
    numbers = {k: sorted(texts).index(text) for k, text in enumerate(texts)}
    write_tasks(root, sorted(texts))
    edit(root / EPISODES, lambda t: put(t, "tasks", [[text] for text in texts]))

    def renumber(table):
        table = put(table, "task_index", [numbers[e] for e in table["episode_index"].to_pylist()])
        for name in table.column_names:  # pandas knows no lists of fixed size
            if pa.types.is_fixed_size_list(table[name].type):
                kind = pa.list_(table[name].type.value_type)
                table = put(table, name, table[name].combine_chunks().cast(kind))
        return table

    edit(root / DATA, renumber)
    edit_info(root, total_tasks=count)


def annotate(root, drop_subtasks=True):
    """Add the columns of `lerobot-annotate`, which drops `subtask_index`."""
    note = {"role": "user", "content": "faster", "style": None, "camera": None, "tool_calls": None}

    def add(table):
        events = [[note] if f == 4 else [] for f in table["frame_index"].to_pylist()]
        table = put(table, "language_events", events)
        table = put(table, "language_persistent", [[]] * len(table))
        return table.drop(["subtask_index"]) if drop_subtasks else table

    edit(root / DATA, add)
    language = {"dtype": "language", "shape": [1], "names": None}
    names = ("language_events", "language_persistent")
    edit_info(root, features=dict.fromkeys(names, language), tools=[{"type": "function"}])


def append_episode(root, leaf=BOOL):
    """Append the last episode again as if lerobot had recorded it.

    Its statistics of truth values are truth values with 0.4.4, and numbers with 0.6.1.
    """
    rows, entries = pq.read_table(root / DATA), pq.read_table(root / EPISODES)
    number = len(entries)
    last = entries.slice(number - 1)
    length, end = last["length"][0].as_py(), last["dataset_to_index"][0].as_py()
    part = rows.slice(end - length)
    part = put(part, "episode_index", [number] * length)
    part = put(part, "index", list(range(end, end + length)))
    texts = [*pq.read_table(root / TASKS)["task"].to_pylist(), "by lerobot"]
    part = put(part, "task_index", [len(texts) - 1] * length)
    pq.write_table(part, root / DATA.replace("000.", "001."))
    last = last.drop([n for n in last.column_names if n.startswith("episode/")])
    new = {"episode_index": number, "dataset_from_index": end, "dataset_to_index": end + length}
    new |= {"data/file_index": 1, "meta/episodes/file_index": 1, "tasks": ["by lerobot"]}
    for name, value in new.items():
        last = put(last, name, [value])
    for name in last.column_names:
        if name.startswith(("stats/next.done", "stats/next.success")) and name.endswith(
            ("/min", "/max")
        ):
            last = put(last, name, pa.array([[bool(last[name][0].as_py()[0])]], pa.list_(leaf)))
    pq.write_table(last, root / EPISODES.replace("000.", "001."))
    write_tasks(root, texts)
    edit_info(
        root, total_episodes=number + 1, total_frames=end + length, total_tasks=len(texts),
        splits={"train": f"0:{number + 1}"},
    )  # fmt: skip


def rewrite(root):
    """Write the dataset as LeRobot's delete and split do: without what is only ours."""
    edit(
        root / EPISODES,
        lambda t: t.drop([n for n in t.column_names if n.startswith("episode/")]),
    )
    for name in ("collection.json", "subtasks.parquet", "tasks.jsonl"):
        (root / "meta" / name).unlink()
    (root / "README.md").unlink()


def split_task(root):
    """Give the second half of each episode another text."""
    write_tasks(root, ["reach", "carry", "never used"])
    count = len(pq.read_table(root / EPISODES))
    edit(root / EPISODES, lambda t: put(t, "tasks", [["reach", "carry"]] * count))
    frames = lambda t: [int(f > 9) for f in t["frame_index"].to_pylist()]  # noqa: E731
    edit(root / DATA, lambda t: put(t, "task_index", frames(t)))
    edit_info(root, total_tasks=3)


def copy(root, target, *edits):
    shutil.copytree(root, target)
    for change in edits:
        change(target)
    return target


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
