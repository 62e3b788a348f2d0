"""Token files are made once, found again, mended when damaged, and tell their texts and prompts."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from symbio_core.config import DataSettings
from symbio_core.corpus import (
    END,
    TokenData,
    as_prompt,
    load_documents,
    prepare,
    read_prompts,
    tokens_needed,
)
from symbio_core.corpus import data as room
from symbio_core.corpus.marks import ended
from symbio_core.corpus.prompts import chat_prompts, draw_prompts
from symbio_core.corpus.splits import SPLITS
from symbio_core.errors import CorpusError, NotWritable

PLAYS = DataSettings(max_bytes=120_000, vocab_size=400, validation_frac=0.1, confirm_frac=0.1)


def ready(folder: Path, settings: DataSettings = PLAYS, **more: int) -> TokenData:
    return prepare(settings, context=32, seed=0, folder=folder, **more)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return ready(tmp_path_factory.mktemp("plays"))


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SPLITS)
def test_streams_hold_the_documents_of_their_split(plays: TokenData, name: str) -> None:
    tokens = getattr(plays, name)
    texts = [ended(text) for text in getattr(plays.splits, name)]
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    assert plays.tokenizer.decode(tokens) == "".join(texts)
    assert plays.tokenizer.token_bytes[tokens].sum() == plays.n_bytes[name]


def test_a_second_call_finds_the_files_of_the_first(tmp_path: Path) -> None:
    first = ready(tmp_path)
    files = written(tmp_path)
    second = ready(tmp_path)
    assert written(tmp_path) == files
    assert len(files) == 5
    assert second.sha256 == first.sha256
    np.testing.assert_array_equal(second.train, first.train)


@pytest.mark.parametrize("name", ["train.bin", "confirm.bin", "tokenizer.json", "meta.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_file_is_made_again(tmp_path: Path, name: str, harm: str) -> None:
    whole = ready(tmp_path, PLAYS.model_copy(update={"tokenizer": "char", "max_bytes": 20_000}))
    (path,) = tmp_path.rglob(name)
    before = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(before[:-7] if harm == "cut" else b"\x7f" + before[1:])
    mended = ready(tmp_path, PLAYS.model_copy(update={"tokenizer": "char", "max_bytes": 20_000}))
    assert path.read_bytes() == before
    assert mended.sha256 == whole.sha256


def test_other_text_split_or_tokenizer_means_other_files(tmp_path: Path) -> None:
    small = PLAYS.model_copy(update={"tokenizer": "char", "max_bytes": 20_000})
    datas = [ready(tmp_path, small)]
    datas.append(prepare(small, context=32, seed=1, folder=tmp_path))
    datas += [
        ready(tmp_path, small.model_copy(update=change))
        for change in ({"max_bytes": 30_000}, {"confirm_frac": 0.2}, {"tokenizer": "bpe"})
    ]
    assert len({data.sha256 for data in datas}) == len(datas) == len(list(tmp_path.iterdir()))


def test_the_same_corpus_elsewhere_has_the_same_identity(plays: TokenData, tmp_path: Path) -> None:
    assert ready(tmp_path).sha256 == plays.sha256


def test_a_write_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(room.os, "replace", refuse)
        with pytest.raises(room.DiskTooFull, match=r"is full while tokens are written; free some"):
            ready(tmp_path)
    assert written(tmp_path) == {}
    assert len(ready(tmp_path).train) > 1000


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(NotWritable, match=r"cannot be written to '.*' \(.*\); choose a folder"):
        ready(tmp_path / "file")


def test_a_corpus_too_small_says_how_much_would_do_and_that_does(tmp_path: Path) -> None:
    need = tokens_needed(12 * 8, 32)
    small = PLAYS.model_copy(update={"max_bytes": 40_000})
    with pytest.raises(CorpusError) as caught:
        ready(tmp_path, small, eval_tokens=need)
    told = re.search(
        r"is [34]\d\.\d kB: its (\w+) split has (\d+) tokens and needs 3073. About ([\d.]+) kB of "
        r"text would do; add text, or lower model.context",
        str(caught.value),
    )
    assert told is not None
    enough = int(float(told[3]) * 1000)
    assert enough < 200_000
    data = ready(tmp_path, small.model_copy(update={"max_bytes": enough}), eval_tokens=need)
    assert min(len(data.validation), len(data.confirm)) >= need


def test_a_tiny_text_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It is a short tale. " * 30, encoding="utf-8")
    settings = DataSettings(corpus=str(tmp_path / "a.txt"))
    with pytest.raises(CorpusError, match=r"^corpus '.*' (is|has) .*(add|Add) text"):
        prepare(settings, context=64, seed=0, folder=tmp_path / "tokens")


def test_texts_are_those_of_their_split_without_marks(plays: TokenData) -> None:
    held_out, trained = plays.heldout_texts(), plays.train_texts(5, seed=1)
    assert len(held_out) == len(plays.splits.validation)
    assert len(trained) == 5
    assert trained == plays.train_texts(5, seed=1) != plays.train_texts(5, seed=2)
    assert not any("<|" in text for text in held_out + trained)
    spoken = " ".join("".join(plays.splits.validation).split())
    assert all(text.split("\n")[0] in spoken for text in held_out)


def test_prompts_are_first_turns_of_held_out_text_with_their_answer(plays: TokenData) -> None:
    prompts = plays.prompts(20, seed=0, max_tokens=48)
    assert len({prompt.text for prompt in prompts}) == 20
    assert prompts == plays.prompts(20, seed=0, max_tokens=48)
    assert prompts != plays.prompts(20, seed=1, max_tokens=48)
    held_out = "".join(plays.splits.validation)
    for prompt in prompts:
        assert f"{prompt.text} {prompt.human} {END}" in held_out
        assert prompt.text not in "".join(plays.splits.train)
    short = plays.prompts(8, seed=0, max_tokens=48)
    assert all(len(plays.tokenizer.encode(prompt.text)) <= 48 for prompt in short)


def test_long_prompts_only_fill_up_and_the_shortest_come_first(plays: TokenData) -> None:
    prompts = plays.prompts(20, seed=0, max_tokens=9)
    lengths = [len(plays.tokenizer.encode(prompt.text)) for prompt in prompts]
    fitting = [length <= 9 for length in lengths]
    assert fitting == sorted(fitting, reverse=True)
    assert not all(fitting)
    rest = [len(prompt.text) for prompt, fit in zip(prompts, fitting, strict=True) if not fit]
    assert rest == sorted(rest)


def test_plain_prompts_are_whole_words_and_go_on_as_the_text_does(tmp_path: Path) -> None:
    data = ready(tmp_path, PLAYS.model_copy(update={"format": "plain"}))
    held_out = [" ".join(text.split()) for text in data.splits.validation]
    for prompt in data.prompts(10):
        assert len(prompt.text.split()) == 8
        whole = " ".join(f"{prompt.text} {prompt.human}".split())
        assert any(whole in text for text in held_out)


@pytest.mark.parametrize("join", ["\n\n", "\n", " "])
def test_plain_text_without_paragraphs_gives_prompts_too(join: str) -> None:
    told = [f"Sentence {i} is about eight words or so." for i in range(60)]
    prompts = draw_prompts([join.join(told)], "plain", 20, 0)
    assert all(prompt.text.startswith("Sentence") for prompt in prompts)
    words = draw_prompts(["so many words " + " ".join(map(str, range(99)))], "plain", 20, 0)
    assert len({prompt.text for prompt in words}) == 20


def test_a_conversation_keeps_its_own_spacing_and_only_its_first_turn_prompts() -> None:
    talk = f"<|user|>hi<|assistant|>hello<|user|>and?<|assistant|>bye{END}"
    (prompt,) = chat_prompts(talk)
    assert (prompt.text, prompt.human) == ("<|user|>hi<|assistant|>", "hello")
    assert chat_prompts(f"<|user|> nobody answers {END}") == []


def test_too_few_prompts_are_refused_with_the_ways_out() -> None:
    with pytest.raises(CorpusError, match=r"holds 1 different prompts; 4 are wanted. Add text,"):
        draw_prompts([f"<|user|>a<|assistant|>b{END}"] * 9, "chat", 4, 0)


def test_a_prompts_file_is_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(" Who goes?\n\nStay, ünd speak!  \n", encoding="utf-8")
    assert read_prompts(tmp_path / "p.txt") == ["Who goes?", "Stay, ünd speak!"]
    assert as_prompt("Who goes?", "chat") == "<|user|> Who goes? <|assistant|>"
    assert as_prompt("<|user|> Who? <|assistant|>", "chat") == "<|user|> Who? <|assistant|>"
    assert as_prompt(" Once upon ", "plain") == "Once upon"


def test_a_bad_prompts_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, told in (
        ("empty.txt", "is empty; write one prompt a line"),
        ("latin.txt", "is not UTF-8: byte 0xe9 at offset 3 (line 1)"),
        ("none.txt", "is not there"),
        ("", "cannot be read (it is not a regular file)"),
    ):
        with pytest.raises(CorpusError, match=re.escape(told)):
            read_prompts(tmp_path / name)


def test_a_corpus_moved_to_another_path_reuses_its_tokens(tmp_path: Path) -> None:
    text = "\n\n".join(f"Line {i} of a long enough tale." * (i % 3 + 1) for i in range(400))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    for name in ("a.txt", "b.txt"):
        settings = DataSettings(corpus=str(tmp_path / name), vocab_size=300)
        assert load_documents(settings).name.endswith(name)
        ready(tmp_path / "tokens", settings)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
