"""The three chat marks and what to do with a text that carries them. Pure."""

from __future__ import annotations

import re

USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end_of_text|>"
MARKS = (USER, ASSISTANT, END)
"""Special tokens in the order of their ids 0, 1, 2, in every tokenizer."""

SPLIT_AT_MARKS = re.compile("(" + "|".join(re.escape(mark) for mark in MARKS) + ")")


def exchange(speech: str, answer: str) -> str:
    """Return a speech and its answer as one exchange of the chat format."""
    return f"{USER} {speech} {ASSISTANT} {answer} {END}"


def is_chat(text: str) -> bool:
    """Say whether both kinds of turn occur in ``text``."""
    return USER in text and ASSISTANT in text


def without_marks(text: str) -> str:
    """Return what people wrote: turns on lines of their own, marks left out."""
    turns = (part.strip() for part in SPLIT_AT_MARKS.split(text) if part not in MARKS)
    return "\n".join(turn for turn in turns if turn)


def ended(text: str) -> str:
    """Return ``text`` with the end mark behind it, once."""
    return text if text.endswith(END) else text + END
