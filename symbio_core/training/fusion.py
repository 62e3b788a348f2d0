"""Consensus of members' weights: elastic averaging, accepted only if it does no harm.

Source: Zhang, Choromanska & LeCun (2015), Deep learning with elastic averaging SGD, arXiv
1412.6651, eqs. 3-4; here once a rung instead of once a step, with the strength compounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symbio_core.training.member import LEARNED, Member


class Consensus:
    """The averaged weights that members of one generation are pulled to."""

    def __init__(self, parent: Member) -> None:
        self.weights: list[Tensor] = [p.detach().clone() for p in shared(parent)]

    @torch.no_grad()
    def follow(self, members: Sequence[Member], *, rate: float, steps: int) -> None:
        """Move towards the members' mean at ``rate`` a step, compounded over ``steps``."""
        share = compounded(rate, steps)
        for index, weight in enumerate(self.weights):
            values = [shared(m)[index].detach() for m in members]
            weight.lerp_(torch.stack(values).mean(dim=0), share)

    @torch.no_grad()
    def perturb(self, relative: float, rng: torch.Generator) -> None:
        """Add noise of ``relative`` times each tensor's own spread."""
        for weight in self.weights:
            noise = torch.randn(weight.shape, generator=rng).to(weight.device)
            weight.add_(noise * weight.std(), alpha=relative)

    @torch.no_grad()
    def pull(self, member: Member, *, strength: float, steps: int) -> list[Tensor]:
        """Pull a member towards the consensus; return the weights it had, to undo the pull."""
        share = compounded(strength, steps)
        parameters = shared(member)
        before = [p.detach().clone() for p in parameters]
        for parameter, weight in zip(parameters, self.weights, strict=True):
            parameter.lerp_(weight, share)
        return before


@torch.no_grad()
def restore(member: Member, weights: Sequence[Tensor]) -> None:
    """Give a member back the weights it had before a refused fusion."""
    for parameter, weight in zip(shared(member), weights, strict=True):
        parameter.copy_(weight)


@torch.no_grad()
def adopt_shadow(member: Member, consensus: Consensus) -> None:
    """Make the consensus the shadow of a member."""
    member.follow_shadow(0.0, 1)
    names = [name for name, _ in member.model.named_parameters()]
    weights = iter(consensus.weights)
    for name, average in zip(names, member.shadow, strict=True):
        if LEARNED not in name:
            average.copy_(next(weights))


def shared(member: Member) -> list[nn.Parameter]:
    """Return the weights that members of all functions have: all but learned constants."""
    return [p for name, p in member.model.named_parameters() if LEARNED not in name]


def compounded(rate: float, steps: int) -> float:
    """Return what a pull of ``rate`` a step comes to after ``steps`` (0..1)."""
    return 1.0 - (1.0 - rate) ** steps
