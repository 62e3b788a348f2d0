"""symbio: trains a small GPT on your corpus, evolves its activation, and judges both honestly."""

__version__ = "0.1.0"
