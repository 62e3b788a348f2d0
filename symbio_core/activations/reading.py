"""Reading a formula back into an expression. Pure."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple, NoReturn

from symbio_core.activations.algebra import canonical
from symbio_core.activations.tree import LEAVES, RESERVE, Add, Expression, Leaf, Mul, Scale, Square
from symbio_core.activations.writing import SUPERSCRIPTS
from symbio_core.errors import ConfigError

EXAMPLE = "0.8·gelu(x)+0.2·x"
MAX_CHARACTERS = 2_000
MAX_BRACKETS = 50
MAX_EXPONENT = 64

_TOKEN = re.compile(
    rf"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]+2?)"
    rf"|(?P<power>[{SUPERSCRIPTS}]+|(?:\^|\*\*)\s*\d+)|(?P<sign>[+\-−])"
    rf"|(?P<times>[·*×⋅])|(?P<open>\()|(?P<close>\))|(?P<other>\S)"
)
_FROM_SUPERSCRIPT = str.maketrans(SUPERSCRIPTS, "0123456789")


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


@lru_cache(maxsize=4_096)
def parse(text: str) -> Expression:
    """Return the canonical expression that a formula names.

    Understood: the leaves as ``gelu(x)`` or just ``gelu``, ``x``, numbers, ``+ -``, ``·`` or ``*``,
    powers as ``²`` or ``^2`` (1 to 64) after a function or brackets, brackets, and ``relu2``.

    Args:
        text: the formula, at most 2000 characters; spaces do not count.

    Returns:
        The canonical form, so that one function written in two ways is one expression.

    Raises:
        ConfigError: the text is no formula; the message says where and shows an example.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"a formula of {len(text)} characters → expected at most {MAX_CHARACTERS} → write a "
            f"shorter one, for example {EXAMPLE}"
        )
    reader = _Reader(text)
    found = reader.sum(0)
    if reader.kind != "end":
        reader.fail("'+', '-', '·' or the end")
    return canonical(found)


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [_Token(str(m.lastgroup), m[0], m.start()) for m in _TOKEN.finditer(text)]
        self.next = 0

    @property
    def token(self) -> _Token:
        if self.next < len(self.tokens):
            return self.tokens[self.next]
        return _Token("end", "", len(self.text))

    @property
    def kind(self) -> str:
        return self.token.kind

    def take(self) -> str:
        text = self.token.text
        self.next += 1
        return text

    def fail(self, expected: str) -> NoReturn:
        token = self.token
        found = f"'{token.text}'" if token.text else "the end"
        raise ConfigError(
            f"formula '{self.text}': {found} at position {token.at + 1} → expected {expected} "
            f"→ write it like {EXAMPLE} or relu(x)²"
        )

    def sum(self, brackets: int) -> Expression:
        negative = self.kind == "sign" and self.take() != "+"
        total = self.term(negative, brackets)
        while self.kind == "sign":
            total = Add(total, self.term(self.take() != "+", brackets))
        return total

    def term(self, negative: bool, brackets: int) -> Expression:
        start = self.token
        numbers: list[float] = [-1.0] if negative else []
        product: Expression | None = None
        while True:
            if self.kind == "number":
                if not math.isfinite(float(self.token.text)):
                    self.fail("a number that a float can hold")
                numbers.append(float(self.take()))
            else:
                factor = self.power(self.base(brackets))
                product = factor if product is None else Mul(product, factor)
            if self.kind != "times":
                break
            self.take()
        if product is None:
            if self.kind in ("end", "sign", "close"):
                self.next = self.tokens.index(start)
                self.fail("a function beside the number, such as 0.2·x")
            self.fail("'·' and a function after the number")
        for value in numbers:
            product = Scale(value, product)
        return product

    def base(self, brackets: int) -> Expression:
        if self.kind == "open":
            if brackets == MAX_BRACKETS:
                self.fail(f"at most {MAX_BRACKETS} brackets inside each other")
            self.take()
            inside = self.sum(brackets + 1)
            self.close()
            return inside
        if self.kind != "name":
            self.fail("a function, x or a number")
        return self.function()

    def function(self) -> Expression:
        name = self.token.text.lower()
        if name == "x":
            self.take()
            return Leaf("identity")
        if name not in (*LEAVES, *RESERVE, "relu2"):
            known = ", ".join(n for n in (*LEAVES, *RESERVE) if n not in ("identity", "square"))
            self.fail(f"x or one of {known}")
        self.take()
        if self.kind == "open":
            self.take()
            if self.token.text.lower() != "x":
                self.fail(f"{name} of x alone, '{name}(x)'")
            self.take()
            self.close()
        return Square(Leaf("relu")) if name == "relu2" else Leaf(name)

    def close(self) -> None:
        if self.kind != "close":
            self.fail("')'")
        self.take()

    def power(self, base: Expression) -> Expression:
        if self.kind != "power":
            return base
        exponent = int(self.token.text.lstrip("^* ").translate(_FROM_SUPERSCRIPT))
        if not 1 <= exponent <= MAX_EXPONENT:
            self.fail(f"a power from 1 to {MAX_EXPONENT}")
        self.take()
        return _raised(base, exponent)


def _raised(base: Expression, exponent: int) -> Expression:
    if exponent == 1:
        return base
    square = Square(_raised(base, exponent // 2))
    return Mul(base, square) if exponent % 2 else square
