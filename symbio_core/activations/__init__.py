"""Expressions: the tree, exact algebra, names that parse back, shapes, variation. Pure."""

from symbio_core.activations.algebra import canonical
from symbio_core.activations.calculus import derivative, evaluate
from symbio_core.activations.cost import passes, relative_cost
from symbio_core.activations.fresh import random_expression, small_expressions
from symbio_core.activations.reading import parse
from symbio_core.activations.rejection import rejection
from symbio_core.activations.shape import (
    DISTINCT,
    TRAINED,
    KnownFunctions,
    distance,
    diversity,
    fingerprint,
    normaliser,
    overlap,
    same_function,
    second_moment,
    shares_of_diversity,
)
from symbio_core.activations.tree import (
    BASELINES,
    LEAVES,
    RESERVE,
    Add,
    Expression,
    Leaf,
    Limits,
    Mul,
    Scale,
    Square,
    depth,
    n_nodes,
    within,
)
from symbio_core.activations.variation import MUTATIONS, NoMutation, crossover, mutate
from symbio_core.activations.writing import formula

__all__ = [
    "BASELINES",
    "DISTINCT",
    "LEAVES",
    "MUTATIONS",
    "RESERVE",
    "TRAINED",
    "Add",
    "Expression",
    "KnownFunctions",
    "Leaf",
    "Limits",
    "Mul",
    "NoMutation",
    "Scale",
    "Square",
    "canonical",
    "crossover",
    "depth",
    "derivative",
    "distance",
    "diversity",
    "evaluate",
    "fingerprint",
    "formula",
    "mutate",
    "n_nodes",
    "normaliser",
    "overlap",
    "parse",
    "passes",
    "random_expression",
    "rejection",
    "relative_cost",
    "same_function",
    "second_moment",
    "shares_of_diversity",
    "small_expressions",
    "within",
]
