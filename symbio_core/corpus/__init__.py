"""Text → checked text → splits → tokens → batches; reads files, writes token files, no torch."""

from symbio_core.corpus.batches import batch, batch_bytes, fixed_batches, tokens_needed
from symbio_core.corpus.data import TokenData, prepare
from symbio_core.corpus.documents import Corpus, load_documents
from symbio_core.corpus.marks import ASSISTANT, END, MARKS, USER, without_marks
from symbio_core.corpus.prompts import Prompt, as_prompt, own_prompts, read_prompts
from symbio_core.corpus.splits import Splits, split
from symbio_core.corpus.tokenizer import (
    BpeTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_json,
    train_tokenizer,
)

__all__ = [
    "ASSISTANT",
    "END",
    "MARKS",
    "USER",
    "BpeTokenizer",
    "CharTokenizer",
    "Corpus",
    "Prompt",
    "Splits",
    "TokenData",
    "Tokenizer",
    "as_prompt",
    "batch",
    "batch_bytes",
    "fixed_batches",
    "load_documents",
    "own_prompts",
    "prepare",
    "read_prompts",
    "split",
    "tokenizer_from_json",
    "tokens_needed",
    "train_tokenizer",
    "without_marks",
]
