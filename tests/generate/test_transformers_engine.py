"""An answer depends on the model, the prompt and its own random numbers alone."""

import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, masking_utils

from wspin.config.stages import Generate
from wspin.engine.cache import PreallocatedLayer
from wspin.engine.decoding import Work
from wspin.engine.sampling import sample_by_inversion
from wspin.errors import StudyError
from wspin.generate.answer import Answer
from wspin.generate.transformers_engine import generate
from wspin.models import folders
from wspin.rng import row_generator

TOKENS = 12
GREEDY = {"temperature": 0.0}
NEVER = 269  # an EOS that this model hardly ever draws


def settings(**changes):
    defaults = {"engine": "transformers", "temperature": 1.0, "top_p": 1.0, "max_new_tokens": TOKENS, "batch_size": 4}
    return Generate.model_validate({**defaults, **changes})


def uniforms(key):
    return row_generator(42, 0, "generate", key).random(TOKENS)


def answers(*arguments):
    return generate(*arguments)[0]


@pytest.fixture(scope="module")
def prompts():
    """Twenty prompts of 1 to 9 tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(1, 270, rng.integers(1, 10)).tolist() for _ in range(20)]


@pytest.fixture
def eos(model, prompts):
    """The token that the model says most often: as EOS it ends some of the answers."""
    said = [i for answer in answers(model, prompts, uniforms, settings(), NEVER) for i in answer.ids]
    return max(set(said), key=said.count)


# Batches, shards, orders


@pytest.mark.parametrize("changes", [{}, GREEDY, {"temperature": 0.7, "top_p": 0.5}])
def test_answers_are_the_same_for_every_batch_size(model, prompts, eos, changes):
    first, *others = (
        answers(model, prompts, uniforms, settings(batch_size=size, **changes), eos) for size in (1, 3, 8, 64)
    )
    assert others == [first] * 3
    assert len({tuple(answer.ids) for answer in first}) > 15


def test_random_numbers_belong_to_the_prompt(model, prompts, eos):
    """Neither the order of the prompts nor the size of a shard matters."""
    expected = answers(model, prompts, uniforms, settings(), eos)
    order = np.random.default_rng(1).permutation(20).tolist()
    shuffled = answers(model, [prompts[i] for i in order], lambda i: uniforms(order[i]), settings(), eos)
    assert shuffled == [expected[i] for i in order]
    for size in (1, 7, 13):
        sharded = []
        for first in range(0, 20, size):
            some = prompts[first : first + size]
            sharded += answers(model, some, lambda i, first=first: uniforms(first + i), settings(), eos)
        assert sharded == expected


def test_other_random_numbers_give_other_answers(model, prompts, eos):
    first, same, other = (
        answers(model, prompts, numbers, settings(), eos)
        for numbers in (uniforms, uniforms, lambda i: uniforms(f"other {i}"))
    )
    assert first == same
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 15


def test_equal_prompts_may_have_different_answers(model, eos):
    said = answers(model, [[5, 6]] * 10, uniforms, settings(), eos)
    assert len({tuple(answer.ids) for answer in said}) > 5


def test_every_answer_is_told_as_it_ends(model, prompts, eos):
    told = {}
    made = answers(model, prompts, uniforms, settings(batch_size=8), eos, told.setdefault)
    assert [told[i] for i in range(20)] == made


# Against other implementations


def greedy(model, prompt, eos):
    """The answer of `model.generate`, one prompt alone."""
    ids = torch.tensor([prompt])
    asked = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=eos, pad_token_id=0)
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)[0, len(prompt) :].tolist()


def test_greedy_is_that_of_transformers(model, prompts, eos):
    found = answers(model, prompts, uniforms, settings(**GREEDY), eos)
    assert [answer.ids for answer in found] == [greedy(model, prompt, eos) for prompt in prompts]


SHAPE = {"vocab_size": 270, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
SHAPE |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
WINDOW = 5  # shorter than most prompts with their answers, longer than some prompts
ONE_OF_EACH = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": WINDOW}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        *[("Qwen2", {}), ("Qwen2", {"use_sliding_window": True, **ONE_OF_EACH}), ("Llama", {}), ("Qwen3", {})],
        *[("Mistral", {"sliding_window": WINDOW}), ("Gemma", {}), ("Gemma2", ONE_OF_EACH), ("GPTNeoX", {})],
        *[("Llama", {"attn_implementation": "eager"}), ("GPT2", {"n_positions": 128}), ("Bloom", {})],
    ],
)
def test_greedy_is_that_of_transformers_for_every_architecture(prompts, kind, own):
    """Learned, rotary and linear positions, grouped heads, windows; alone, with refilled slots, and with padding."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **own})
    made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(10.0 if weight.dim() > 1 else 1.0)
    whole = [greedy(made, prompt, None) for prompt in prompts]
    said = [i for ids in whole for i in ids]
    eos = max(set(said), key=said.count)
    expected = [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in whole]
    for size in (1, 3, 8):
        found = answers(made, prompts, uniforms, settings(batch_size=size, **GREEDY), eos)
        assert [answer.ids for answer in found] == expected
    assert len({len(ids) for ids in expected}) > 1
    assert len({tuple(ids) for ids in expected}) > 5


@torch.no_grad()
def test_sampling_is_that_of_a_plain_loop(model, prompts, eos):
    """One prompt and one whole forward pass per token."""
    asked = settings(temperature=0.8, top_p=0.9)
    for number, answer in enumerate(answers(model, prompts, uniforms, asked, eos)):
        ids, said = list(prompts[number]), []
        for uniform in uniforms(number):
            logits = model(input_ids=torch.tensor([ids + said])).logits[0, -1]
            said.append(inverted(logits.tolist(), uniform, 0.8, 0.9))
            if said[-1] == eos:
                break
        assert answer.ids == said


def inverted(logits, uniform, temperature, top_p):
    """`sample_by_inversion` for one row, in Python's own float64."""
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
    assert sample_by_inversion(scores, torch.from_numpy(numbers), temperature, top_p).tolist() == expected


def drawn(probabilities, count=4000, **changes):
    """Share of each token over evenly spread uniform numbers: equal to its probability but for the spacing."""
    scores = torch.tensor(probabilities, dtype=torch.float64).log()
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    arguments = {"temperature": 1.0, "top_p": 1.0, **changes}
    tokens = sample_by_inversion(scores.expand(count, -1), numbers, **arguments)
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
    assert sample_by_inversion(torch.zeros(2, 1000), numbers, 1.0, 0.5).tolist() == [0, 499]


def test_every_token_counts_without_a_nucleus():
    """`top_p: 1` leaves out nothing, however small: that the others' sum rounds to one must not matter."""
    scores, zero = torch.tensor([[-45.0, 0.0]]), torch.zeros(1, dtype=torch.float64)
    assert [sample_by_inversion(scores, zero, 1.0, top_p).item() for top_p in (1.0, 0.999)] == [0, 1]


def test_rare_tokens_are_drawn_as_often_as_they_should():
    """Nine of two in a billion each: in float32 they would vanish beside the sum, which is one."""
    scores, late = torch.tensor([[0.0, *[-20.0] * 9]]), torch.tensor([1 - 1e-9], dtype=torch.float64)
    assert sample_by_inversion(scores, late, 1.0, 1.0).item() == 9


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [0.3, 1.0])
def test_a_token_without_probability_is_never_drawn(uniform, top_p):
    """Neither at the ends of the vocabulary nor between."""
    impossible = -math.inf
    scores = torch.tensor([[impossible, 1.0, impossible, 1.0, impossible], [-1e4, -1e4, 0.0, -1e4, -1e4]])
    found = sample_by_inversion(scores, torch.tensor([uniform] * 2, dtype=torch.float64), 1.0, top_p).tolist()
    assert found == [1 if uniform < 0.5 or top_p < 0.5 else 3, 2]


# How answers end


def test_trap_32_eos_is_there_if_and_only_if_the_answer_ended(model, prompts, eos):
    said = answers(model, prompts, uniforms, settings(), eos)
    assert {answer.finish_reason for answer in said} == {"stop", "length"}
    for answer in said:
        assert answer.ids.count(eos) == (answer.finish_reason == "stop")
        assert answer.ids[-1] == eos or len(answer.ids) == TOKENS


def test_answers_are_cut_at_the_limit(model, prompts, eos):
    """And the part before the cut does not depend on it."""
    long, short = (answers(model, prompts, uniforms, settings(max_new_tokens=n), eos) for n in (TOKENS, 3))
    assert max(len(answer.ids) for answer in short) == 3
    assert [answer.ids for answer in short] == [answer.ids[:3] for answer in long]
    assert [answer.finish_reason for answer in short] == ["stop" if a.ids[-1] == eos else "length" for a in short]


def test_an_answer_may_end_at_the_limit(model, prompts, eos):
    """EOS as the last token allowed is an end, not a cut."""
    ended = next(a for a in answers(model, prompts, uniforms, settings(), eos) if a.ids[-1] == eos and len(a.ids) > 1)
    said = answers(model, prompts, uniforms, settings(max_new_tokens=len(ended.ids)), eos)
    assert ended in said


def test_an_empty_answer_is_eos_alone(model, prompts):
    (first,) = answers(model, prompts[:1], uniforms, settings(**GREEDY), NEVER)
    assert answers(model, prompts[:1], uniforms, settings(**GREEDY), first.ids[0]) == [Answer(first.ids[:1], "stop")]


# What is computed


@pytest.fixture
def forwards(model):
    """(rows, tokens) of every forward pass."""
    seen = []
    model.register_forward_pre_hook(lambda _, __, named: seen.append(tuple(named["input_ids"].shape)), with_kwargs=True)
    return seen


def ending(model, lengths):
    """Make the model even-handed; returns uniform numbers that end each answer, with EOS 0, after so many tokens."""
    with torch.no_grad():
        for weight in model.lm_head.parameters():
            weight.zero_()
    return lambda i: np.array([0.0 if step + 1 == lengths[i] else 0.502 for step in range(TOKENS)])


def test_rows_leave_with_their_last_token(model, forwards):
    """Four prompts in four slots: no slot computes for an answer that ended."""
    made, work = generate(model, [[1, 2, 3], [4], [5, 6], [7]], ending(model, [2, 5, 1, 3]), settings(), 0)
    assert [len(answer.ids) for answer in made] == [2, 5, 1, 3]
    assert forwards == [(4, 3), (3, 1), (2, 1), (1, 1), (1, 1)]
    assert work == Work(slot_steps=7, useful_slot_steps=7, prompt_tokens=7, computed_prompt_tokens=12)
    assert work.useful == 1.0


def test_waiting_prompts_take_the_free_slots(model, forwards):
    """Six prompts in two slots, the longest first, and of equally long ones the first."""
    lengths = [2, 4, 1, 1, 3, 2]
    prompts = [[1], [1] * 5, [1] * 3, [1, 2], [1], [1] * 4]
    made, work = generate(model, prompts, ending(model, lengths), settings(batch_size=2), 0)
    assert [len(answer.ids) for answer in made] == lengths
    assert forwards == [(2, 5), (2, 1), (1, 3), (1, 2), (1, 1), (2, 1), (1, 1), (2, 1), (1, 1)]
    assert work == Work(slot_steps=7, useful_slot_steps=7, prompt_tokens=16, computed_prompt_tokens=17)


def test_useful_share():
    assert Work(slot_steps=8, useful_slot_steps=6, prompt_tokens=1, computed_prompt_tokens=1).useful == 0.75


@pytest.mark.parametrize(("lengths", "limit"), [([1] * 5, TOKENS), ([2] * 5, 1)])
def test_all_rows_may_end_with_the_first_token(model, forwards, lengths, limit):
    made, work = generate(model, [[1]] * 5, ending(model, lengths), settings(max_new_tokens=limit), 0)
    assert forwards == [(4, 1), (1, 1)]
    assert work == Work(slot_steps=0, useful_slot_steps=0, prompt_tokens=5, computed_prompt_tokens=5)
    assert work.useful == 1.0
    assert [answer.finish_reason for answer in made] == ["stop" if limit > 1 else "length"] * 5
    assert [len(answer.ids) for answer in made] == [1] * 5


def watch_attention(monkeypatch, see):
    """Call `see(key, mask)` at every attention."""
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask, **more):
        see(key, attn_mask)
        return attend(query, key, value, attn_mask=attn_mask, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)


def test_attention_reads_what_the_longest_row_needs(model, monkeypatch):
    """Once a long prompt's row has left, its columns are dropped before the next prompt is read."""
    widths = []
    watch_attention(monkeypatch, lambda key, _: widths.append(key.shape[2]))
    answers(model, [[1] * 8, [2], [3]], ending(model, [2, 5, 3]), settings(batch_size=2), 0)
    assert widths[::2] == widths[1::2] == [8, 9, 1, 3, 4, 5]


def test_slots_that_stayed_free_do_no_harm(model):
    """Two of sixteen must be free before prompts take them; the columns between were never written."""
    lengths = [1, 10, *[12] * 14, 2, 2]
    made = answers(model, [*[[1, 2]] * 16, [3], [3]], ending(model, lengths), settings(batch_size=16), 0)
    assert [len(answer.ids) for answer in made] == lengths
    assert {i for answer in made for i in answer.ids} == {0, 135}


def test_logits_are_those_of_the_last_token(model, prompts):
    shapes = []
    model.lm_head.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape[1]))
    answers(model, prompts, uniforms, settings(), NEVER)
    assert set(shapes) == {1}


def test_a_model_in_training_generates_alike(model, prompts, eos):
    """Without dropout, and with a cache."""
    expected = answers(model, prompts, uniforms, settings(), eos)
    model.train()
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    assert answers(model, prompts, uniforms, settings(), eos) == expected
    assert not model.training


@pytest.mark.parametrize(("shortest", "masked"), [(9, False), (1, True)])
def test_masks_are_made_where_prompts_differ(model, monkeypatch, shortest, masked):
    """And in a step never ask what the padding is: a GPU would have to be waited for."""
    masks, asked = [], []
    ask = masking_utils.fast_all
    watch_attention(monkeypatch, lambda _, mask: masks.append(mask is not None))
    monkeypatch.setattr(masking_utils, "fast_all", lambda mask: asked.append(tuple(mask.shape)) or ask(mask))
    answers(model, [[1] * 9, [2] * shortest], uniforms, settings(), NEVER)
    assert masks == [masked] * 2 * TOKENS
    assert set(asked) == ({(2, 9)} if masked else set())  # of the prompts


def test_no_prompts_have_no_answers(model):
    assert generate(model, [], uniforms, settings(), 0) == ([], Work(0, 0, 0, 0))


@pytest.mark.parametrize(("count", "slots"), [(20, 3), (2, 2)])
def test_the_cache_holds_the_longest_prompt_and_answer(model, monkeypatch, count, slots):
    """However many prompts follow in its slots."""
    taken = []
    take = PreallocatedLayer.lazy_initialization

    def watched(self, *states):
        take(self, *states)
        taken.append(tuple(self.keys.shape))

    monkeypatch.setattr(PreallocatedLayer, "lazy_initialization", watched)
    answers(model, [[1] * 9] * count, uniforms, settings(batch_size=3), NEVER)
    assert taken == [(slots, 2, 9 + TOKENS - 1, 16)] * 2


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
    expected = answers(model, prompts, uniforms, settings(**changes), eos)
    model.generation_config = GenerationConfig(**own)
    assert answers(model, prompts, uniforms, settings(**changes), eos) == expected


@pytest.mark.parametrize("stops", [None, 0, [0]])
def test_a_model_may_agree_on_eos_or_be_silent(model, stops):
    model.generation_config.eos_token_id = stops
    folders.check_eos(model, 0, "results/sft/model")


@pytest.mark.parametrize("stops", [1, [1], [2, 1]])
def test_another_eos_is_refused(model, stops):
    model.generation_config.eos_token_id = stops
    with pytest.raises(StudyError) as error:
        folders.check_eos(model, 0, "results/sft/model")
    found = stops if isinstance(stops, list) else [stops]
    assert str(error.value) == (
        f"results/sft/model: generation_config.eos_token_id: expected 0 (dialogue.eos), found {found}"
    )
