"""How often does a search claim a winner where nothing is better than anything?

Losses are dealt out at random (`search.shuffle`): in every rung those of each batch among the
members, in the final those of each seed among the contenders, so that a run has nothing to find.
All else is the run's own: phases, generations, selection, the final and its verdict. A run is lived
up to its final. One that ends before it has claimed nothing, nor has it found that there is no
difference; it is counted by itself.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table

from symbio_core.benches import arms
from symbio_core.benches.arms import Say, Searched
from symbio_core.config import RunConfig, changed
from symbio_core.gates.evidence import share_interval
from symbio_core.records import Interval

CLAIMS = ("evolved wins", "fixed wins")
"""Verdicts that say that one function is better than another."""


def measure(config: RunConfig, seeds: int, jobs: int, say: Say) -> tuple[Table, dict[str, Any]]:
    """Search with shuffled scores, a run a seed, and count the runs that claim a winner.

    Args:
        config: whose search and final are put to the test; scores are shuffled whatever it says.
        seeds: runs; seed numbers follow the configuration's own.
        jobs: runs at once, one CPU thread each where there is more than one.
        say: takes a line of progress.

    Raises:
        ConfigError: the search or the final is switched off.
    """
    arms.check_searches(config, "the null search")
    config = arms.unhurried(config, jobs)
    config = changed(config, {"search.shuffle": True} | arms.SMALL_BATTERY)
    found = arms.told(arms.each(_search, arms.seeded(config, seeds), jobs), _line, say)
    settled = sum(one.confirmation is not None for one in found)
    claimed = sum(map(has_claimed, found))
    claims = share_interval(claimed, settled, confidence=0.95)
    level = share_interval(settled - claimed, len(found), confidence=0.95)
    generations = [g for one in found for g in one.generations]
    finds = share_interval(sum(g.found for g in generations), len(generations), confidence=0.95)
    data = arms.heading("null-search", config, jobs) | {
        "runs": [_row(one) for one in found],
        "sentence": sentence(claimed, settled, claims, without=len(found) - settled),
        "summary": arms.in_keys("false_discovery_frac", claims)
        | arms.in_keys("no_difference_frac", level)
        | arms.in_keys("generation_found_frac", finds)
        | {
            "runs": float(len(found)),
            "runs_without_final": float(len(found) - settled),
            "generations": float(len(generations)),
            "seconds_per_seed": sum(one.seconds for one in found) / len(found),
        },
    }
    return _table(data), data


def has_claimed(one: Searched) -> bool:
    """Say whether the run ended with one function declared better than another."""
    return one.confirmation is not None and one.confirmation.verdict in CLAIMS


def sentence(claims: int, searches: int, share: Interval, *, without: int = 0) -> str:
    """Tell a person what the null search found.

    Args:
        claims: searches that claimed a winner.
        searches: those that came to their final.
        share: claims over searches.
        without: searches that ended before their final.
    """
    many = "1 search" if searches == 1 else f"{searches} searches"
    rest = f"; {without} more ended before the final and claimed nothing" if without else ""
    return (
        f"In {claims} of {many} with scores dealt out at random the run claimed a winner: "
        f"{share.value:.0%} ({share.confidence:.0%} interval {share.low:.1%} to {share.high:.1%})"
        f"{rest}."
    )


def _search(config: RunConfig) -> Searched:
    return arms.search(config, "null")


def _line(one: Searched) -> str:
    final = one.confirmation
    verdict = final.verdict if final else "ended before its final"
    found = sum(g.found for g in one.generations)
    return (
        f"seed {one.seed}  {verdict}  {found} of {len(one.generations)} generations 'found' "
        f"something  {one.seconds:.0f} s"
    )


def _row(one: Searched) -> dict[str, Any]:
    final = one.confirmation
    return {
        "run": one.run_id,
        "seed": one.seed,
        "verdict": final.verdict if final else None,
        "sentence": final.sentence if final else "ended before its final",
        "p_values": [effect.p_value for effect in final.effects] if final else [],
        "generations": len(one.generations),
        "found": sum(g.found for g in one.generations),
        "line": one.line,
        "steps": one.steps,
        "seconds": one.seconds,
    }


def _table(data: dict[str, Any]) -> Table:
    runs, summary = data["runs"], data["summary"]
    table = Table("shuffled scores", "count", "of", "share", "95% interval", box=None)

    def add(name: str, part: int, whole: int, key: str | None) -> None:
        share = f"{part / whole:.1%}" if whole else "–"
        span = f"{summary[f'{key}_ci_low']:.1%} to {summary[f'{key}_ci_high']:.1%}" if key else ""
        table.add_row(name, str(part), str(whole), share, span)

    n, settled = len(runs), sum(row["verdict"] is not None for row in runs)
    add("runs that ended in 'no difference'", _claimed(runs, ("no difference",)), n,
        "no_difference_frac")  # fmt: skip
    add("runs that ended before their final", n - settled, n, None)
    add("finals that claimed a winner", _claimed(runs, CLAIMS), settled, "false_discovery_frac")
    for verdict in CLAIMS:
        add(f"  of them '{verdict}'", _claimed(runs, (verdict,)), settled, None)
    generations, found = sum(r["generations"] for r in runs), sum(r["found"] for r in runs)
    add("generations that 'found' a function", found, generations, "generation_found_frac")
    table.add_section()
    table.add_row("model and budget", data["model"], "", "", "")
    table.add_row("seconds a run", f"{summary['seconds_per_seed']:.0f}", "", "", "")
    return table


def _claimed(runs: list[dict[str, Any]], verdicts: tuple[str, ...]) -> int:
    return sum(row["verdict"] in verdicts for row in runs)
