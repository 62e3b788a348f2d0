"""Ask and tell: rungs, candidates, ranking, what the search knows, pressure, Kuramoto. Pure."""

from symbio_core.search import kuramoto, pressure
from symbio_core.search.common_scale import Trial
from symbio_core.search.pressure import Pressure
from symbio_core.search.proposing import Proposal, propose
from symbio_core.search.ranking import (
    Ranked,
    bonus_decay,
    functional_distance,
    rank,
    select_winner,
    top_k,
    tournament,
)
from symbio_core.search.rungs import Rung, generation_cost, rung_plan
from symbio_core.search.state import (
    HallEntry,
    SearchState,
    front,
    front_after,
    initial_state,
    levels,
    should_explore,
    tell,
)
from symbio_core.search.uncertainty import TRAINING_NOISE_NATS, early_noise, widened

__all__ = [
    "TRAINING_NOISE_NATS",
    "HallEntry",
    "Pressure",
    "Proposal",
    "Ranked",
    "Rung",
    "SearchState",
    "Trial",
    "bonus_decay",
    "early_noise",
    "front",
    "front_after",
    "functional_distance",
    "generation_cost",
    "initial_state",
    "kuramoto",
    "levels",
    "pressure",
    "propose",
    "rank",
    "rung_plan",
    "select_winner",
    "should_explore",
    "tell",
    "top_k",
    "tournament",
    "widened",
]
