"""pytest tests/test_engines.py: an answer depends on the model, the prompt and its own random numbers alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from wspin import StudyError, models, seeds
from wspin.config import Generate
from wspin.engines import Answer, generate, invert

TOKENS = 12
GREEDY = {"temperature": 0.0}
NEVER = 269  # an EOS that this model hardly ever draws


def settings(**changes):
    defaults = {"engine": "transformers", "temperature": 1.0, "top_p": 1.0, "max_new_tokens": TOKENS, "batch_size": 4}
    return Generate.model_validate({**defaults, **changes})


def uniforms(key):
    return seeds.generator(42, 0, "generate", key).random(TOKENS)


@pytest.fixture(scope="module")
def prompts():
    """Twenty prompts of 1 to 9 tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(1, 270, rng.integers(1, 10)).tolist() for _ in range(20)]


@pytest.fixture
def eos(model, prompts):
    """The token that the model says most often: as EOS it ends some of the answers."""
    said = [i for answer in generate(model, prompts, uniforms, settings(), NEVER) for i in answer.ids]
    return max(set(said), key=said.count)


# Batches, shards, orders


@pytest.mark.parametrize("changes", [{}, GREEDY, {"temperature": 0.7, "top_p": 0.5}])
def test_answers_are_the_same_for_every_batch_size(model, prompts, eos, changes):
    first, *others = (
        generate(model, prompts, uniforms, settings(batch_size=size, **changes), eos) for size in (1, 3, 8, 64)
    )
    assert others == [first] * 3
    assert len({tuple(answer.ids) for answer in first}) > 15


def test_random_numbers_belong_to_the_prompt(model, prompts, eos):
    """Neither the order of the prompts nor the size of a shard matters."""
    expected = generate(model, prompts, uniforms, settings(), eos)
    order = np.random.default_rng(1).permutation(20).tolist()
    shuffled = generate(model, [prompts[i] for i in order], lambda i: uniforms(order[i]), settings(), eos)
    assert shuffled == [expected[i] for i in order]
    for size in (1, 7, 13):
        sharded = []
        for first in range(0, 20, size):
            some = prompts[first : first + size]
            sharded += generate(model, some, lambda i, first=first: uniforms(first + i), settings(), eos)
        assert sharded == expected


def test_other_random_numbers_give_other_answers(model, prompts, eos):
    first, same, other = (
        generate(model, prompts, numbers, settings(), eos)
        for numbers in (uniforms, uniforms, lambda i: uniforms(f"other {i}"))
    )
    assert first == same
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 15


def test_equal_prompts_may_have_different_answers(model, eos):
    said = generate(model, [[5, 6]] * 10, uniforms, settings(), eos)
    assert len({tuple(answer.ids) for answer in said}) > 5


def test_progress_ends_at_the_number_of_prompts(model, prompts, eos):
    told = []
    generate(model, prompts, uniforms, settings(batch_size=8), eos, told.append)
    assert told == [8, 16, 20]


# Against other implementations


def test_greedy_is_that_of_transformers(model, prompts, eos):
    found = generate(model, prompts, uniforms, settings(**GREEDY), eos)
    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        asked = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=eos, pad_token_id=eos)
        assert (
            model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)[0, len(prompt) :].tolist()
            == answer.ids
        )


@torch.no_grad()
def test_sampling_is_that_of_a_plain_loop(model, prompts, eos):
    """One prompt and one whole forward pass per token."""
    asked = settings(temperature=0.8, top_p=0.9)
    for number, answer in enumerate(generate(model, prompts, uniforms, asked, eos)):
        ids, said = list(prompts[number]), []
        for uniform in uniforms(number):
            logits = model(input_ids=torch.tensor([ids + said])).logits[0, -1]
            said.append(inverted(logits.tolist(), uniform, 0.8, 0.9))
            if said[-1] == eos:
                break
        assert answer.ids == said


def inverted(logits, uniform, temperature, top_p):
    """`invert` for one row, in Python's own float64."""
    weights = [math.exp((one - max(logits)) / temperature) for one in logits]
    probabilities = [one / math.fsum(weights) for one in weights]
    nucleus, mass = set(), 0.0
    for token in sorted(range(len(logits)), key=lambda i: -probabilities[i]):
        if mass >= top_p:
            break
        nucleus.add(token)
        mass += probabilities[token]
    target, passed = uniform * math.fsum(probabilities[i] for i in nucleus), 0.0
    for token in sorted(nucleus):
        passed += probabilities[token]
        if passed > target:
            return token
    return max(nucleus)


# Inverting a distribution


@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.0]), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_invert_is_the_plain_loop(seed, temperature, top_p):
    rng = np.random.default_rng(seed)
    scores, numbers = torch.from_numpy(rng.normal(0, 3, (4, 50)).astype(np.float32)), rng.random(4)
    expected = [inverted(row, u, temperature, top_p) for row, u in zip(scores.tolist(), numbers, strict=True)]
    assert invert(scores, torch.from_numpy(numbers), temperature, top_p).tolist() == expected


def drawn(probabilities, count=4000, **changes):
    """Share of each token over evenly spread uniform numbers: equal to its probability but for the spacing."""
    scores = torch.tensor(probabilities, dtype=torch.float64).log()
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    arguments = {"temperature": 1.0, "top_p": 1.0, **changes}
    tokens = invert(scores.expand(count, -1), numbers, **arguments)
    return (torch.bincount(tokens, minlength=len(probabilities)) / count).tolist()


def test_frequencies_are_the_probabilities():
    probabilities = [0.05, 0.4, 0.0, 0.25, 0.3]
    assert drawn(probabilities) == pytest.approx(probabilities, abs=1 / 2000)


def test_temperature_sharpens():
    squares = [0.01, 0.16, 0.09]
    assert drawn([0.1, 0.4, 0.3], temperature=0.5) == pytest.approx([one / 0.26 for one in squares], abs=1 / 2000)


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [
        *[(1.0, [0.125, 0.5, 0.125, 0.25]), (0.8, [0.125, 0.5, 0.0, 0.25])],
        *[(0.75, [0.0, 0.5, 0.0, 0.25]), (0.6, [0.0, 0.5, 0.0, 0.25]), (0.5, [0, 0.5, 0, 0]), (1e-9, [0, 0.5, 0, 0])],
    ],
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, nucleus):
    """Of two equal tokens the first goes in; what is left is scaled up to one."""
    expected = [one / sum(nucleus) for one in nucleus]
    assert drawn([0.125, 0.5, 0.125, 0.25], top_p=top_p) == pytest.approx(expected, abs=1 / 2000)


def test_of_many_equal_tokens_the_first_go_in():
    numbers = torch.tensor([0.0, 1 - 1e-9], dtype=torch.float64)
    assert invert(torch.zeros(2, 1000), numbers, 1.0, 0.5).tolist() == [0, 499]


def test_every_token_counts_without_a_nucleus():
    """`top_p: 1` leaves out nothing, however small: that the others' sum rounds to one must not matter."""
    scores, zero = torch.tensor([[-45.0, 0.0]]), torch.zeros(1, dtype=torch.float64)
    assert [invert(scores, zero, 1.0, top_p).item() for top_p in (1.0, 0.999)] == [0, 1]


def test_rare_tokens_are_drawn_as_often_as_they_should():
    """Nine of two in a billion each: in float32 they would vanish beside the sum, which is one."""
    scores, late = torch.tensor([[0.0, *[-20.0] * 9]]), torch.tensor([1 - 1e-9], dtype=torch.float64)
    assert invert(scores, late, 1.0, 1.0).item() == 9


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [0.3, 1.0])
def test_a_token_without_probability_is_never_drawn(uniform, top_p):
    """Neither at the ends of the vocabulary nor between."""
    impossible = -math.inf
    scores = torch.tensor([[impossible, 1.0, impossible, 1.0, impossible], [-1e4, -1e4, 0.0, -1e4, -1e4]])
    found = invert(scores, torch.tensor([uniform] * 2, dtype=torch.float64), 1.0, top_p).tolist()
    assert found == [1 if uniform < 0.5 or top_p < 0.5 else 3, 2]


# How answers end


def test_eos_is_there_if_and_only_if_the_answer_ended(model, prompts, eos):
    said = generate(model, prompts, uniforms, settings(), eos)
    assert {answer.finish_reason for answer in said} == {"stop", "length"}
    for answer in said:
        assert answer.ids.count(eos) == (answer.finish_reason == "stop")
        assert answer.ids[-1] == eos or len(answer.ids) == TOKENS


def test_answers_are_cut_at_the_limit(model, prompts, eos):
    """And the part before the cut does not depend on it."""
    long, short = (generate(model, prompts, uniforms, settings(max_new_tokens=n), eos) for n in (TOKENS, 3))
    assert max(len(answer.ids) for answer in short) == 3
    assert [answer.ids for answer in short] == [answer.ids[:3] for answer in long]
    assert [answer.finish_reason for answer in short] == ["stop" if a.ids[-1] == eos else "length" for a in short]


def test_an_answer_may_end_at_the_limit(model, prompts, eos):
    """EOS as the last token allowed is an end, not a cut."""
    ended = next(a for a in generate(model, prompts, uniforms, settings(), eos) if a.ids[-1] == eos and len(a.ids) > 1)
    said = generate(model, prompts, uniforms, settings(max_new_tokens=len(ended.ids)), eos)
    assert ended in said


def test_an_empty_answer_is_eos_alone(model, prompts):
    (first,) = generate(model, prompts[:1], uniforms, settings(**GREEDY), NEVER)
    assert generate(model, prompts[:1], uniforms, settings(**GREEDY), first.ids[0]) == [Answer(first.ids[:1], "stop")]


# The model's own settings


@pytest.mark.parametrize("changes", [{}, GREEDY])
@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": 5.0},
        {"top_k": 1, "do_sample": True},
        {"temperature": 0.01, "top_p": 0.01, "do_sample": True},
        {"suppress_tokens": list(range(100))},
        {"min_new_tokens": TOKENS, "no_repeat_ngram_size": 1},
        {"max_new_tokens": 2, "eos_token_id": [0, 1, 2]},
    ],
)
def test_the_models_own_settings_do_not_enter(model, prompts, eos, own, changes):
    expected = generate(model, prompts, uniforms, settings(**changes), eos)
    model.generation_config = GenerationConfig(**own)
    assert generate(model, prompts, uniforms, settings(**changes), eos) == expected


@pytest.mark.parametrize("stops", [None, 0, [0]])
def test_a_model_may_agree_on_eos_or_be_silent(model, stops):
    model.generation_config.eos_token_id = stops
    models.check_eos(model, 0, "results/sft/model")


@pytest.mark.parametrize("stops", [1, [1], [0, 1]])
def test_another_eos_is_refused(model, stops):
    model.generation_config.eos_token_id = stops
    with pytest.raises(StudyError) as error:
        models.check_eos(model, 0, "results/sft/model")
    found = stops if isinstance(stops, list) else [stops]
    assert str(error.value) == (
        f"results/sft/model: generation_config.eos_token_id: expected 0 (dialogue.eos), found {found}"
    )
