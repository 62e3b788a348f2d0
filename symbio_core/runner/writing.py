"""Let a model write the inference battery, in one batch, and score it against human text."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from symbio_core.gates import Answer, score_battery
from symbio_core.model import GPT, generate
from symbio_core.records import Battery
from symbio_core.runner.workbench import Workbench


def write_battery(bench: Workbench, model: GPT) -> Battery:
    """Answer every prompt at every temperature and score the answers.

    The same prompt at the same temperature draws the same random numbers at every gate, so two
    batteries can be compared answer by answer.
    """
    began = time.perf_counter()
    answers = answer_all(bench, model, bench.prompts, bench.config.gates.temperatures)
    battery = score_battery(
        bench.reference,
        answers,
        seed=bench.config.seed,
        confidence=bench.config.gates.confidence,
    )
    return battery.model_copy(update={"seconds": time.perf_counter() - began})


def answer_all(
    bench: Workbench,
    model: GPT,
    prompts: Sequence[str],
    temperatures: Sequence[float],
    *,
    seed: int | None = None,
) -> list[Answer]:
    """Return the answer to each prompt at each temperature, prompt by prompt.

    A model whose weights are not all finite cannot choose a word: each of its answers is an error.

    Args:
        bench: tokenizer, device and settings.
        model: the model.
        prompts: what it is given, in the form of the corpus.
        temperatures: every prompt is tried at each.
        seed: of the random numbers that choose the words; None takes the run's own.
    """
    tokenizer = bench.data.tokenizer
    cells = [(i, p, t) for i, p in enumerate(prompts) for t in temperatures]
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        broken = "the model's weights are not finite"
        return [Answer(i, p, t, "", error=broken, ended=False) for i, p, t in cells]
    rows = [np.asarray(tokenizer.encode(prompt), dtype=np.int64) for _, prompt, _ in cells]
    new_tokens = bench.config.gates.new_tokens
    was_training = model.training
    model.eval()
    with bench.device.autocast():
        made = generate(
            model,
            rows,
            temperatures=[temperature for _, _, temperature in cells],
            new_tokens=new_tokens,
            end_id=tokenizer.end_id,
            seed=bench.config.seed if seed is None else seed,
            names=[(index, f"{temperature:g}") for index, _, temperature in cells],
        )
    model.train(was_training)
    return [
        Answer(
            prompt_index=index,
            prompt=prompt,
            temperature=temperature,
            text=tokenizer.decode(ids),
            error=None,
            ended=len(ids) < new_tokens,
        )
        for (index, prompt, temperature), ids in zip(cells, made, strict=True)
    ]
