"""One attempt at a phase: train the main line, buy generations, confirm, save, evaluate.

Everything that a resumed phase needs is in `PhaseProgress` and the members' arrays, and those are
what a step checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from symbio_core import gates, lifecycle, progress
from symbio_core.errors import Interrupted, Overtime
from symbio_core.monitors import paired_interval
from symbio_core.records import (
    CheckpointRef,
    Confirmation,
    EvalPoint,
    Generation,
    LayerReading,
    Outcome,
    PhasePlan,
    Verdict,
)
from symbio_core.runner.attempt import PhaseProgress, PhaseResult, in_words, responses_to
from symbio_core.runner.confirm import confirm, fixed_functions, successor
from symbio_core.runner.generation import Gather, Setting, gather, plan_rungs, run_generation
from symbio_core.runner.pace import Pace
from symbio_core.runner.vault import Snapshot, Vault
from symbio_core.runner.workbench import Workbench
from symbio_core.search import SearchState, levels, should_explore
from symbio_core.search import pressure as pressures
from symbio_core.streams import generator
from symbio_core.training import Member, lr_factor, read_layers
from symbio_core.training.schedule import warmup

SKIP_WINDOW = 40
"""Main-line steps before the share of skipped ones can stop a phase."""
PROBE_STEPS = 8
"""Steps of each of the three forks of a learning-rate probe."""
PROBE_FACTORS = (0.5, 1.0, 2.0)


class PhaseRun:
    """One attempt under way."""

    def __init__(
        self,
        bench: Workbench,
        vault: Vault,
        plan: PhasePlan,
        snapshot: Snapshot,
        pace: Pace,
        *,
        start: CheckpointRef,
        spent_before: int,
        settled: Confirmation | None = None,
        gather: Gather = gather,
        history: Sequence[Generation] = (),
        earlier: Sequence[EvalPoint] = (),
    ) -> None:
        self.bench = bench
        self.vault = vault
        self.plan = plan
        self.pace = pace
        self.settled = settled
        """What an earlier attempt's final has found; no function that lost it trains on."""
        self.gather = gather
        self.history = history
        """Generations of earlier attempts."""
        self.earlier = earlier
        """What the line did before the attempt."""
        self.line: Member = snapshot.member
        self.search: SearchState = snapshot.search
        self.best: Snapshot | None = snapshot.best
        self.at = PhaseProgress.model_validate(
            snapshot.progress or {"start": start, "spent_before": spent_before}
        )
        self._adapt()
        if snapshot.progress is None:
            self._leave_a_loser()
            self._evaluate()
        self.saved_at = self.begun_at = self.at.spent
        self.is_late = False
        """Whether it was seen to take far longer than predicted."""
        self.stopped = ""
        self.reason = ""

    def _leave_a_loser(self) -> None:
        # Whatever checkpoint the run has gone back to, what the final has settled stays settled.
        rival = successor(self.settled, self.line.formula) if self.settled else None
        if rival is not None:
            self._say(f"{self.line.formula} lost the final: the main line goes on with {rival}")
            self.line = self.line.fork(rival)

    def run(self) -> PhaseResult:
        """Go on to the end of the attempt.

        Raises:
            Overtime: it takes far longer than predicted; the last checkpoint is saved.
        """
        while not self.stopped and self.at.spent < self._train_steps:
            with self._saved_on_stop():
                if self._buys_generation():
                    self._generation()
                elif self._wants_probe():
                    self._probe()
                else:
                    self._stretch()
            self._check()
            self._save_if_due()
        if self.plan.confirm_steps and self._holds_final():
            with self._saved_on_stop():
                self._confirm()
        return self._finish()

    def _holds_final(self) -> bool:
        """Say whether the final is due: a phase that gets another try leaves it to that one."""
        is_last = self.plan.attempt >= self.bench.config.budget.max_attempts
        return not self.stopped or (self.stopped == "diverged" and is_last)

    @contextmanager
    def _saved_on_stop(self) -> Iterator[None]:
        # A stretch ends between two steps; a generation or a final is given up and begun again,
        # because they leave the line itself alone until they are done.
        try:
            yield
            if progress.stop_requested():
                raise Interrupted("stopped on request")
        except (Interrupted, Overtime):
            self._save()
            raise

    @property
    def _train_steps(self) -> int:
        return self.plan.steps - self.plan.confirm_steps

    @property
    def _inside(self) -> float:
        return min(1.0, self.at.spent / max(1, self._train_steps))

    def _adapt(self) -> None:
        """Go by what verdicts have changed: those of earlier phases, and of this one so far."""
        self.adaptation = lifecycle.answered(self.plan.adaptation, self.at.responses)
        self.settings = lifecycle.effective(self.bench.config, self.plan.phase, self.adaptation)

    def _lr(self, spent: float, line_step: int) -> float:
        inside = min(1.0, spent / max(1, self._train_steps))
        position = self.plan.begin + (self.plan.end - self.plan.begin) * inside
        scale = self.plan.lr_scale * self.adaptation.lr_scale
        return lr_factor(self.bench.config, position) * warmup(self.bench.config, line_step) * scale

    def _update(self, **changes: object) -> None:
        self.at = self.at.model_copy(update=changes)

    # --- the main line

    def _stretch(self) -> None:
        every = self.bench.config.gates.eval_every
        to_eval = every - self.at.line_steps % every
        steps = min(to_eval, self._train_steps - self.at.spent)
        if self._may_still_probe():
            steps = min(steps, self._train_steps - self._probe_cost - self.at.spent)
        first, spent = self.line.line_step, self.at.spent
        stretch = self.line.train(
            steps,
            self.bench.train_batches("line"),
            lambda line_step: self._lr(spent + line_step - first, line_step),
            clip_scale=self.adaptation.clip_scale,
            on_step=self._reporter("training"),
            should_stop=lambda: progress.stop_requested() or self._sees_overtime(),
        )
        self._update(
            line_steps=self.at.line_steps + stretch.steps,
            skipped=self.at.skipped + stretch.skipped,
            clipped=self.at.clipped + stretch.clipped,
            watch=self.at.watch.after(stretch, first),
        )
        if self.bench.config.has("fusion"):
            self._follow_shadow(stretch.steps, is_whole=stretch.steps == steps)
        if self.at.line_steps % every == 0 or self.at.spent >= self._train_steps:
            self._evaluate()
            self._answer_rate()
        self.pace.learn(self.at.spent - self.begun_at, self.plan.steps)

    def _follow_shadow(self, steps: int, *, is_whole: bool) -> None:
        # In one go over the whole stretch: two half ones would round differently.
        owed = self.at.shadow_owed + steps
        self._update(shadow_owed=0 if is_whole else owed)
        if is_whole:
            self.line.follow_shadow(self.settings.fusion.consensus_rate, owed)

    def _evaluate(self) -> None:
        bench = self.bench
        val = bench.measure(self.line.model, bench.validation)
        train = bench.measure(self.line.model, bench.train_probe)
        mean = float(val.mean())
        gap = np.std(val - val.mean() - (train - train.mean()), ddof=1) / np.sqrt(len(val))
        point = EvalPoint(
            step=self.at.spent_before + self.at.spent,
            line_step=self.line.line_step,
            train_nats=float(train.mean()),
            val_nats=mean,
            val_bpb=bench.bpb(mean, bench.validation),
            gap_ci=float(1.96 * gap),
            lr_factor=self._lr(self.at.spent, self.line.line_step),
        )
        nats = tuple(float(x) for x in val)
        begun = self.at.begun_nats or nats
        self._update(points=(*self.at.points, point), begun_nats=begun, last_nats=nats)
        if not self.at.best_nats or mean < float(np.mean(self.at.best_nats)):
            self._update(best_nats=nats)
            self.best = Snapshot.of(self.line, self.search)

    # --- search

    def _buys_generation(self) -> bool:
        if not self.settings.population or not self.bench.config.has("search"):
            return False
        if self.settled is not None:
            return False  # Nobody would put to the test what it found.
        search = self.bench.config.search
        if not should_explore(
            self.search,
            patience=search.patience,
            extra_patience=round(self.adaptation.extra_patience),
            phase=self.plan.phase,
            attempt=self.plan.attempt,
        ):
            return False
        cost = lifecycle.generation_price(self.bench.config, self.settings, self._population())
        allowance = search.exploration_frac * self._train_steps
        return self.at.explored + cost <= allowance and self.at.spent + cost <= self._train_steps

    def _population(self) -> int:
        if not self.bench.config.has("pressure"):
            return self.settings.population
        return pressures.population(self.search.pressure, self.settings.population)

    def _generation(self) -> None:
        size = self._population()
        setting = Setting(
            plan=self.plan.model_copy(update={"adaptation": self.adaptation}),
            settings=self.settings,
            population=size,
            rungs=plan_rungs(self.bench, self.settings, size),
            lr=self._lr(self.at.spent, self.line.line_step),
            inside=self._inside,
        )
        generation, self.line, self.search = run_generation(
            self.bench,
            self.line,
            self.search,
            setting,
            self._reporter("searching"),
            self.gather,
        )
        self._update(
            line_steps=self.at.line_steps + generation.steps_kept,
            search_steps=self.at.search_steps + generation.steps - generation.steps_kept,
            explored=self.at.explored + generation.steps,
            skipped=self.at.skipped + generation.skipped,
            clipped=self.at.clipped + generation.clipped,
            generations=(*self.at.generations, generation),
        )
        self._evaluate()
        found = f"{generation.winner} takes over" if generation.found else "nothing better found"
        self._say(f"generation {generation.index + 1}: {len(generation.members)} tried, {found}")
        self._answer_search()

    # --- answers of the phase to itself

    def _answer_search(self) -> None:
        """Let what the search shows so far change the numbers of its next generations.

        Where there will be none, the answer is left to the phases to come.
        """
        found, level = self._so_far(), self.bench.config.gates
        before = self.at
        self._answer(
            *gates.judge_levels(found, self.history, level),
            *gates.judge_standstill(found, self.history, level, self.earlier),
        )
        if self.at.responses != before.responses and not self._buys_generation():
            self.at = before
            self._adapt()
        self._say_answers(since=before)

    def _answer_rate(self) -> None:
        """Let a learning rate that is seen to be wrong be another for the rest of the phase."""
        if self.at.spent < self._train_steps:
            before = self.at
            self._answer(gates.judge_rate(self._so_far(), self.bench.config.gates))
            self._say_answers(since=before)

    def _answer(self, *verdicts: Verdict) -> None:
        """Apply what failed verdicts ask for."""
        if self.bench.config.has("niche"):
            answers = responses_to(verdicts, self.adaptation, self.at)
            self._update(responses=(*self.at.responses, *answers))
            self._adapt()

    def _say_answers(self, *, since: PhaseProgress) -> None:
        for answer in self.at.responses[len(since.responses) :]:
            self._say(in_words(answer))

    def _so_far(self) -> Outcome:
        return self.at.outcome(
            self.plan, lambda nats: self.bench.bpb(float(np.mean(nats)), self.bench.validation)
        )

    # --- learning-rate probe

    @property
    def _probe_cost(self) -> int:
        return len(PROBE_FACTORS) * PROBE_STEPS

    def _may_still_probe(self) -> bool:
        return self._needs_probe() and self.at.spent + self._probe_cost < self._train_steps

    def _wants_probe(self) -> bool:
        left = self._train_steps - self.at.spent - self._probe_cost
        if left > 0 and self._is_spoiled() and self._may_probe():
            return True
        return left == 0 and self._needs_probe()

    def _may_probe(self) -> bool:
        return self.bench.config.has("probe") and self.at.lr_probe is None

    def _needs_probe(self) -> bool:
        return self._may_probe() and self._is_flat()

    def _is_spoiled(self) -> bool:
        # At once where the line surely lost ground on all it is measured on: then the rest of the
        # phase may still be saved. A function that has just taken over is given time to settle.
        points = self.at.points
        if len(points) < 4 or any(g.found for g in self.at.generations):
            return False
        first, last = points[0], points[-1]
        lost = min(last.val_nats - first.val_nats, last.train_nats - first.train_nats)
        return lost > last.gap_ci

    def _is_flat(self) -> bool:
        # A probe costs steps, so it is bought only when the later half of the phase stood still, or
        # the whole of it: far too high a learning rate spoils the line first and then lets it mend.
        points = self.at.points
        if len(points) < 4:
            return False
        before = min(points[0].val_nats, points[len(points) // 2].val_nats)
        return points[-1].val_nats >= before - points[-1].gap_ci

    def _probe(self) -> None:
        bench, lr = self.bench, self._lr(self.at.spent, self.line.line_step)
        nats: list[npt.NDArray[np.float64]] = []
        forks, stretches = [], []
        for factor in PROBE_FACTORS:
            fork = self.line.fork()
            stretch = fork.train(
                PROBE_STEPS,
                bench.train_batches("line"),
                _constant(lr * factor),
                clip_scale=self.adaptation.clip_scale,
            )
            nats.append(bench.measure(fork.model, bench.validation))
            forks.append(fork)
            stretches.append(stretch)
        level = bench.config.gates.confidence
        half, double = (paired_interval(nats[i], nats[1], confidence=level) for i in (0, 2))
        self.line = forks[1]
        self._update(
            line_steps=self.at.line_steps + PROBE_STEPS,
            search_steps=self.at.search_steps + self._probe_cost - PROBE_STEPS,
            skipped=self.at.skipped + stretches[1].skipped,
            clipped=self.at.clipped + stretches[1].clipped,
            lr_probe=tuple(float(x.mean()) for x in nats),
            lr_probe_ci=(half.high - half.value, double.high - double.value),
        )
        self._evaluate()
        self._answer_rate()

    # --- the final

    def _confirm(self) -> None:
        config = self.bench.config
        fixed = fixed_functions(gated=config.model.ffn == "gated")
        champion = self._champion(set(fixed.values()))
        entries = len({champion, *fixed.values()})
        each = lifecycle.final_steps(config, self.plan.confirm_steps, entries)
        if self.at.confirmation is None and each >= 1:
            found = confirm(self.bench, champion, each, self._reporter("confirming"))
            self._update(confirmation=found, confirm_steps=self.at.confirm_steps + found.steps)
            self._say(found.sentence)
            self._save()
        if self.at.confirmation is not None and not self.at.warm_done:
            self._warm_trial()

    def _champion(self, fixed: set[str]) -> str:
        """Return the function to put to the test: the line's, or the best evolved one tried."""
        if self.line.formula not in fixed:
            return self.line.formula
        evolved = {f: level.value for f, level in levels(self.search).items() if f not in fixed}
        return min(evolved, key=lambda f: evolved[f], default=self.line.formula)

    def _warm_trial(self) -> None:
        assert self.at.confirmation is not None
        confirmation = self.at.confirmation
        steps = self.bench.config.confirm.warm_steps
        forced = successor(confirmation, self.line.formula)
        rival = forced or min(confirmation.contenders, key=lambda c: c.bpb).formula
        if rival == self.line.formula or self.stopped or steps == 0:
            # Where the end is not one to go on from, the next phase begins with what was settled.
            self._update(warm_done=True)
            return
        lr = self._lr(self.at.spent, self.line.line_step)
        first = self.line.line_step
        # An evolved function that lost for sure is not trained on, however well it sits now.
        formulas = [rival] if forced else [self.line.formula, rival]
        tried = []
        for formula in formulas:
            member = self.line.fork(formula)
            stretch = member.train(
                steps,
                self.bench.train_batches("line"),
                lambda step: lr * (1.0 - 0.8 * (step - first) / steps),
                on_step=self._reporter("confirming"),
            )
            nats = float(self.bench.measure(member.model, self.bench.validation).mean())
            tried.append((nats, member, stretch))
        _, self.line, stretch = min(tried, key=lambda one: one[0])
        self._update(
            warm_done=True,
            line_steps=self.at.line_steps + steps,
            confirm_steps=self.at.confirm_steps + (len(tried) - 1) * steps,
            skipped=self.at.skipped + stretch.skipped,
            clipped=self.at.clipped + stretch.clipped,
        )
        self._evaluate()
        why = "the final is lost" if forced else "warm trial"
        self._say(f"{why}: the main line goes on with {self.line.formula}")

    # --- watching, saving, ending

    def _check(self) -> None:
        point = self.at.points[-1]
        trained = self.at.line_steps
        share = self.at.skipped / max(1, trained)
        if not np.isfinite(point.val_nats):
            self.stopped, self.reason = "diverged", "the validation loss is not finite"
        elif trained >= SKIP_WINDOW and share >= self.bench.config.gates.skip_frac:
            self.stopped = "diverged"
            self.reason = f"{share:.0%} of {trained} steps were skipped as spikes"
        elif self.pace.is_over():
            why = progress.end_requested() or "the cap on seconds was reached"
            self.stopped, self.reason = "seconds", why
        elif self._sees_overtime():
            self._save()
            raise self._overtime()

    def _sees_overtime(self) -> bool:
        self.is_late = self.is_late or self.pace.is_overtime(self.at.spent)
        return self.is_late

    def _overtime(self) -> Overtime:
        return Overtime(
            f"phase {self.plan.phase} takes more than {self.pace.overtime:g}× the time predicted "
            f"for it; it goes on from its last checkpoint"
        )

    def _save_if_due(self) -> None:
        every = self.bench.config.storage.save_every
        if self.at.spent // every > self.saved_at // every and self.at.spent < self._train_steps:
            self._save()

    def _save(self) -> None:
        self.saved_at = self.at.spent
        at = self.at.model_copy(update={"seconds": self.pace.phase_seconds})
        here = Snapshot(self.line, self.search, self.best, at.model_dump(mode="json"))
        self.vault.save_step(self.plan, here, step=self._step_now)

    def _finish(self) -> PhaseResult:
        at = self.at
        diverged = self.stopped == "diverged"
        end = self.vault.save_end(self.plan, self.line, self.search, step=self._step_now)
        best = end
        if self.best is not None and self.best.member.line_step != self.line.line_step:
            best = self.vault.save_best(self.plan, self.best, step=self._step_now)
        outcome = Outcome(
            phase=self.plan.phase,
            attempt=self.plan.attempt,
            stopped="diverged" if diverged else ("seconds" if self.stopped else "done"),
            reason=self.reason,
            start=at.start,
            end=end,
            best=best,
            points=at.points,
            generations=at.generations,
            line_steps=at.line_steps,
            search_steps=at.search_steps,
            confirm_steps=at.confirm_steps,
            skipped=at.skipped,
            clipped=at.clipped,
            lr_probe=at.lr_probe,
            lr_probe_ci=at.lr_probe_ci,
            responses=at.responses,
            alarms=at.watch.alarms(at.points),
            layers=self._layers(),
            tokens=at.spent * self.bench.tokens_per_step,
            seconds=self.pace.phase_seconds,
        )
        return PhaseResult(outcome, self.search, at.confirmation)

    def _layers(self) -> tuple[LayerReading, ...]:
        bench, plan = self.bench, self.plan
        rng = generator(bench.config.seed, "layers", plan.phase, plan.attempt)
        return read_layers(self.line.model, bench.validation[0], bench.device, rng)

    @property
    def _step_now(self) -> int:
        return self.at.spent_before + self.at.spent

    def _reporter(self, activity: str) -> Callable[[int, float], None]:
        counted = {"steps": 0}
        before = self._step_now

        def on_step(_: int, loss: float) -> None:
            counted["steps"] += 1
            if activity != "training" and progress.stop_requested():
                raise Interrupted("stopped on request")
            if activity != "training" and self._sees_overtime():
                raise self._overtime()
            self.pace.report(
                self.plan, activity, before + counted["steps"], loss, self.line.formula
            )

        return on_step

    def _say(self, message: str) -> None:
        self.pace.say(self.plan, message, self._step_now, self.line.formula)


def _constant(lr: float) -> Callable[[int], float]:
    return lambda _: lr
