import numpy as np
import pytest
import torch

from symbio_core.config import ModelSettings
from symbio_core.model import GPT, generate

SMALL = ModelSettings(n_layer=2, n_head=2, n_embd=16, context=12)


def awake(settings: ModelSettings = SMALL, formula: str = "gelu(x)", seed: int = 3) -> GPT:
    """A model whose blocks do something; fresh ones begin as the identity."""
    model = GPT(settings, 30, formula, seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.blocks.parameters():
            weight.normal_(std=0.3, generator=rng)
        model.head.weight.normal_(std=0.5, generator=rng)
    return model.eval()


def greedy(model: GPT, prompt: list[int], n: int) -> list[int]:
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def sampled(
    model: GPT, prompts: list[list[int]], temperature: float, n: int = 6
) -> list[list[int]]:
    answers = generate(
        model,
        [np.array(prompt) for prompt in prompts],
        temperatures=[temperature] * len(prompts),
        new_tokens=n,
        end_id=29,
        seed=5,
        names=[("row", prompt[0]) for prompt in prompts],
    )
    return [[int(i) for i in answer] for answer in answers]


def test_no_position_sees_the_future() -> None:
    model = awake()
    ids = torch.arange(10)[None]
    changed = ids.clone()
    changed[0, 7:] = 2
    before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


@pytest.mark.parametrize("formula", ["gelu(x)", "relu(x)²", "gelu(x)·silu(x)"])
def test_sampling_with_a_cache_gives_what_reading_everything_again_gives(formula: str) -> None:
    model = awake(formula=formula)
    prompt = [4, 9, 2]
    expected = greedy(model, prompt, 6)
    if 29 in expected:
        expected = expected[: expected.index(29)]
    assert sampled(model, [prompt], 0.0)[0] == expected


def test_an_answer_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    model = awake()
    alone = sampled(model, [[4, 9, 2]], 0.9)[0]
    together = sampled(model, [[7], [4, 9, 2], [1, 2, 3, 4, 5, 6, 7]], 0.9)[1]
    assert alone == together


def test_sampling_goes_on_beyond_the_context() -> None:
    answer = sampled(awake(), [[4, 9, 2]], 1.5, n=40)[0]
    assert len(answer) > SMALL.context or len(answer) < 40


def test_sampling_uses_the_models_own_activation() -> None:
    plain, other = awake(formula="gelu(x)"), awake(formula="relu(x)²")
    with torch.no_grad():
        for a, b in zip(plain.parameters(), other.parameters(), strict=True):
            b.copy_(a)
    assert sampled(plain, [[4, 9, 2]], 0.0, 12) != sampled(other, [[4, 9, 2]], 0.0, 12)


def test_temperature_follows_the_models_probabilities() -> None:
    model = awake()
    prompts = [[5]] * 600
    answers = generate(
        model,
        [np.array(p) for p in prompts],
        temperatures=[0.8] * 600,
        new_tokens=1,
        end_id=-1,
        seed=1,
        names=[("row", i) for i in range(600)],
    )
    counts = np.bincount([int(a[0]) for a in answers], minlength=30) / 600
    with torch.no_grad():
        expected = (model(torch.tensor([[5]]))[0, -1] / 0.8).softmax(-1).numpy()
    assert np.abs(counts - expected).max() < 0.07


def test_fresh_weights_depend_on_the_seed_and_not_on_the_formula() -> None:
    one, two = GPT(SMALL, 30, "gelu(x)", 3), GPT(SMALL, 30, "relu(x)²", 3)
    other = GPT(SMALL, 30, "gelu(x)", 4)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_a_fresh_model_knows_nothing_but_guesses_evenly() -> None:
    model = GPT(SMALL, 30, "gelu(x)", 3)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        assert float(model.loss(ids, ids)) == pytest.approx(np.log(30), abs=0.1)


def test_a_gated_ffn_holds_about_as_many_parameters_as_a_plain_one() -> None:
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 128, "context": 16}
    plain = GPT(ModelSettings(**shape), 30, "gelu(x)", 1)
    gated = GPT(ModelSettings(ffn="gated", **shape), 30, "gelu(x)", 1)
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, gated)]
    assert count[1] == pytest.approx(count[0], rel=0.03)
    assert torch.isfinite(gated(torch.arange(16)[None])).all()


def test_tied_embeddings_are_one_tensor() -> None:
    tied = GPT(SMALL.model_copy(update={"tie_embeddings": True}), 30, "gelu(x)", 1)
    assert tied.head.weight is tied.embedding.weight
    assert len(list(tied.parameters())) == len(list(GPT(SMALL, 30, "gelu(x)", 1).parameters())) - 1
