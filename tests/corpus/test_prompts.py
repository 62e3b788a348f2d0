"""A person's prompts file: what is read from it, and what is refused in one line."""

import re
from pathlib import Path

import pytest

from symbio_core.corpus import own_prompts, read_prompts
from symbio_core.errors import CorpusError


def own(path: Path, form: str = "plain", context: int = 20) -> list[str]:
    return own_prompts(path, form, context=context, n_tokens=lambda text: len(text.split()))  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_blank_lines_and_line_ends_are_no_prompts(
    tmp_path: Path, end: str
) -> None:
    lines = [
        "\ufeffWho goes?",
        "",
        "  Stay! ",
        "\t",
        "A page\x0cand\u2028a line",
        "Who goes?",
        "No.",
    ]
    (tmp_path / "p.txt").write_bytes(end.join(lines).encode())
    found = read_prompts(tmp_path / "p.txt")
    assert found == ["Who goes?", "Stay!", "A page\x0cand\u2028a line", "No."]
    assert own(tmp_path / "p.txt") == found


def test_a_prompt_of_a_chat_gets_its_marks_once(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\nb\n<|user|> c <|assistant|>\n<|user|> d\n")
    assert own(tmp_path / "p.txt", "chat") == [
        f"<|user|> {letter} <|assistant|>" for letter in "abcd"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; write one prompt a line"),
        (b"one\ntwo\nthree\ntwo", "holds 3 different prompts; the battery takes 4 to 200. Add"),
        ("\n".join(map(str, range(201))).encode(), "holds 201 different prompts"),
        (b"a\nb\nc\n" + b"long " * 21, "'long long long long long long …' is 21 tokens long"),
        (b"caf\xe9\n", "is not UTF-8: byte 0xe9 at offset 3 (line 1)"),
        ("a\nb".encode("utf-16"), "is not text: NUL byte"),
        (b"a\x00b", "is not text: NUL byte at offset 1"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_one_line(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=re.escape(told)) as caught:
        own(tmp_path / "p.txt")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"prompts file .* is not there"):
        own(tmp_path / "none.txt")
