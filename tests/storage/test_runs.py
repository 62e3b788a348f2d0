from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.errors import AlreadyExists, ConfigError, StorageError, SwapLost, UnknownRun
from symbio_core.storage import FolderStore, Journal, ObjectStore, RunStore, list_runs

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
events = st.lists(st.dictionaries(st.text(max_size=6), values, max_size=3), max_size=4)


@pytest.fixture
def journal(run: RunStore) -> Journal:
    return run.journal


def again(journal: Journal) -> Journal:
    return Journal(journal.store, "alpha")


# --- the journal


@settings(max_examples=30, deadline=None)
@given(appends=st.lists(events, max_size=4))
def test_what_was_appended_is_read_in_its_order(
    shared: ObjectStore, appends: list[list[dict[str, Any]]]
) -> None:
    for key in shared.keys("runs/alpha/journal/"):
        shared.delete(key)
    journal = Journal(shared, "alpha")
    for batch in appends:
        journal.append(batch)
    expected = [event for batch in appends for event in batch]
    for reader in (journal, Journal(shared, "alpha")):
        assert json.dumps(reader.read(), sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\n", "\r", "\x0b", "\x1e", "\x00"])
def test_no_sign_in_a_text_breaks_a_line(journal: Journal, mark: str) -> None:
    journal.append([{"text": f"before{mark}after"}])
    journal.append([{"text": "next"}])
    assert again(journal).read() == [{"text": f"before{mark}after"}, {"text": "next"}]


def test_a_journal_that_was_read_can_be_continued(journal: Journal) -> None:
    journal.append([{"n": 1}])
    other = again(journal)
    assert other.read() == [{"n": 1}]
    other.append([{"n": 2}])
    assert again(journal).read() == [{"n": 1}, {"n": 2}]


def test_a_journal_not_yet_written_is_empty(journal: Journal) -> None:
    assert journal.read() == []


def test_to_append_nothing_writes_nothing(journal: Journal) -> None:
    journal.append([])
    assert journal.store.keys("") == []
    assert journal.read() == []


def test_the_second_of_two_writers_is_refused_until_it_has_read(journal: Journal) -> None:
    other = again(journal)
    assert journal.read() == other.read() == []
    journal.append([{"from": "first"}])
    for _ in range(2):
        with pytest.raises(SwapLost, match="another process works on this run"):
            other.append([{"from": "second"}])
    assert other.read() == [{"from": "first"}]
    other.append([{"from": "second"}])
    with pytest.raises(SwapLost):
        journal.append([{"from": "first again"}])
    assert again(journal).read() == [{"from": "first"}, {"from": "second"}]


def test_a_gap_is_named(journal: Journal) -> None:
    for n in range(3):
        journal.append([{"n": n}])
    journal.store.delete(f"{journal.home}00000001.jsonl")
    with pytest.raises(StorageError, match=r"segment .*runs/alpha/journal/00000001\.jsonl is miss"):
        again(journal).read()


@pytest.mark.parametrize(
    "damage",
    [b"", b"\n", b'{"n": 1', b'{"n": 1}\n{"n": 2', b"\xff\xfe\n", b'{"n": 1}\n\n', b"7\n", b"[]\n"],
)
def test_a_damaged_segment_is_named(run: RunStore, damage: bytes) -> None:
    for n in range(3):
        run.journal.append([{"n": n}])
    run.write_file("journal/00000001.jsonl", damage)
    with pytest.raises(StorageError, match=r"journal/00000001\.jsonl is damaged") as error:
        again(run.journal).read()
    assert "\n" not in str(error.value)


def test_strange_files_beside_the_segments_are_no_part_of_it(run: RunStore) -> None:
    run.journal.append([{"n": 0}])
    for name in ("notes.jsonl", "00000000.bak.jsonl", "old/00000000.jsonl", "1.jsonl"):
        run.write_file(f"journal/{name}", b"mine")
    journal = again(run.journal)
    assert journal.read() == [{"n": 0}]
    journal.append([{"n": 1}])
    assert again(journal).read() == [{"n": 0}, {"n": 1}]


def test_an_append_that_dies_anywhere_is_whole_or_not_there(tmp_path: Path, faults: Any) -> None:
    for call in range(50):
        journal = Journal(FolderStore(tmp_path / str(call)), "alpha")
        journal.append([{"n": 0}])
        died = faults.dies(call, lambda to=journal: to.append([{"n": 1}, {"n": 2}]))
        found = again(journal).read()
        assert found[0] == {"n": 0}
        assert found[1:] in ([{"n": 1}, {"n": 2}], *([[]] if died else []))
        if not died:
            assert call >= 3
            return
    raise AssertionError("an append without end")


# --- a run's home


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../alpha", "a/b", "Alpha", "-a", "a b", "a\n", "ä", "a" * 64, "a\x00"]
)
def test_a_run_has_a_name_that_is_safe_everywhere(store: ObjectStore, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a run name; use small letters"):
        RunStore(store, name)
    with pytest.raises(ConfigError):
        RunStore(store, "fine").sibling(name)


@pytest.mark.parametrize("name", ["a", "7", "demo-2026-01-31_a.b", "a" * 63])
def test_ordinary_names_are_fine(store: ObjectStore, name: str) -> None:
    RunStore(store, name).create({"seed": 1})
    assert list_runs(store) == [name]
    assert RunStore(store, name).read_config() == {"seed": 1}


def test_an_unknown_run_is_told_apart_from_a_damaged_one(run: RunStore) -> None:
    with pytest.raises(UnknownRun, match=r"no run 'alpha' .*`symbio runs` lists them"):
        run.read_config()
    for damage in (b"", b"{", b"[1]", b"\xff"):
        run.write_file("config.json", damage)
        with pytest.raises(StorageError, match=r"runs/alpha/config\.json is damaged"):
            run.read_config()


def test_a_configuration_is_written_once(run: RunStore) -> None:
    run.create({"seed": 1})
    run.create({"seed": 1})
    with pytest.raises(AlreadyExists):
        run.create({"seed": 2})
    assert run.read_config() == {"seed": 1}


def test_runs_are_listed_by_their_own_configurations_alone(store: ObjectStore) -> None:
    for name in ("b", "a"):
        RunStore(store, name).create({})
    RunStore(store, "c").write_file("model/config.json", b"{}")
    store.create("runs/config.json", b"{}")
    assert list_runs(store) == ["a", "b"]
    assert list_runs(FolderStore(Path("nowhere at all"))) == []


def test_a_file_is_replaced_whole(run: RunStore) -> None:
    assert not run.has_file("report/page.html")
    for data in (b"one", b"", b"two" * 1000):
        run.write_file("report/page.html", data)
        assert run.read_file("report/page.html") == data
    assert run.has_file("report/page.html")
    assert not run.has_file("report")
    with pytest.raises(StorageError, match=r"runs/alpha/report/other\.html is missing"):
        run.read_file("report/other.html")


def test_a_file_stays_inside_its_run(run: RunStore) -> None:
    for name in ("../beta/config.json", "/etc/passwd", "a/../../x"):
        with pytest.raises(ConfigError):
            run.write_file(name, b"x")


def test_the_state_moves_forward_and_is_plain_json(run: RunStore) -> None:
    for state in ({"phase": 0}, {"phase": 1, "loss": math.inf}):
        run.write_state(state)
        assert json.loads(run.read_file("state.json")) == state


def test_a_table_comes_back_as_it_was(run: RunStore) -> None:
    frame = pd.DataFrame(
        {
            "step": np.arange(4),
            "loss": np.array([1.5, np.nan, np.inf, -0.0]),
            "formula": ["gelu(x)", "x²", "", "a\u2028b"],
            "found": [True, False, True, False],
        }
    )
    run.write_metrics("points", frame)
    pd.testing.assert_frame_equal(run.read_metrics("points"), frame)
    run.write_metrics("points", frame.iloc[:1])
    assert len(run.read_metrics("points")) == 1
    run.write_metrics("nothing", frame.iloc[:0])
    assert list(run.read_metrics("nothing").columns) == list(frame.columns)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_damaged_table_is_named(run: RunStore, damage: bytes) -> None:
    run.write_file("metrics/points.parquet", damage)
    with pytest.raises(StorageError, match=r"metrics/points\.parquet is damaged"):
        run.read_metrics("points")
    with pytest.raises(StorageError, match=r"metrics/other\.parquet is missing"):
        run.read_metrics("other")


def test_runs_do_not_see_each_other(store: ObjectStore) -> None:
    one, two = RunStore(store, "a"), RunStore(store, "a-b")
    one.journal.append([{"run": "a"}])
    assert two.journal.read() == []
    assert one.sibling("a-b").run_id == "a-b"
    two.checkpoints.save({"m": {"w": np.ones(1)}}, {}, step=1, kind="end")
    one.checkpoints.retain(set())
    assert two.checkpoints.newest_whole().manifest is not None
