"""The GPT, the evolved activation inside it, sampling with a cache. Torch; no disk, no cloud."""

from symbio_core.model.activation import Activation
from symbio_core.model.gpt import GPT, Cache
from symbio_core.model.sampling import generate

__all__ = ["GPT", "Activation", "Cache", "generate"]
