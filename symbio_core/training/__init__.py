"""One step, one member, a population of members, fusion of weights, evaluation. Torch; no disk."""

from symbio_core.training.device import Device, prepare_device
from symbio_core.training.evaluation import Batch, bits_per_byte, ffn_entropy, losses_per_batch
from symbio_core.training.fusion import Consensus, adopt_shadow, restore
from symbio_core.training.layers import read_layers
from symbio_core.training.member import Member, Stretch
from symbio_core.training.schedule import lr_factor

__all__ = [
    "Batch",
    "Consensus",
    "Device",
    "Member",
    "Stretch",
    "adopt_shadow",
    "bits_per_byte",
    "ffn_entropy",
    "losses_per_batch",
    "lr_factor",
    "prepare_device",
    "read_layers",
    "restore",
]
