"""Log-probabilities against whole forward passes, one answer at a time."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from wspin.engine import head, support
from wspin.engine.batches import micro_batches
from wspin.engine.head import head_logprobs, token_divergences
from wspin.engine.logprobs import answer_states, autocast, token_logprobs
from wspin.engine.packing import Item, pack
from wspin.engine.support import check_model
from wspin.errors import StudyError
from wspin.logprobs.score import score_items
from wspin.models import folders
from wspin.train import losses

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # GPTBigCode's own
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])
CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES = [
    ("Qwen2", {}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),  # of two: full, sliding
    ("Qwen3", {}),
    ("Llama", {}),
    ("Llama", {"num_key_value_heads": 1}),
    *(("Mistral", {"sliding_window": window}) for window in (2, 5, 64)),
    ("Gemma", {}),
    ("Gemma3Text", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    ("GPTNeoX", {}),
    ("GPT2", {}),
    ("GPT2", {"scale_attn_by_inverse_layer_idx": True}),
    ("OPT", {}),
    ("Phi", {}),
    ("Phi3", {"sliding_window": 4}),
    ("Starcoder2", {"sliding_window": 4}),
    ("GPTBigCode", {}),
    ("Olmo2", {}),
    ("Granite", {}),
    ("SmolLM3", {}),
    ("Exaone4", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    ("Mixtral", EXPERTS),
]
REFUSED = [
    ("Gemma2", {}, "gemma2: expected logits = head.hidden states., found a scaled or capped head"),
    ("Gemma2", {"final_logit_softcapping": None}, "Gemma2Attention: expected plain causal attention, found softcap"),
    ("Cohere", {}, "cohere: expected logits = head.hidden states., found a scaled or capped head"),
    ("Granite", {"logits_scaling": 8.0}, "granite: expected logits = head.*, found a scaled or capped head"),
    ("Mamba", {}, "mamba: expected attention layers, found linear_attention"),
    ("Qwen3Next", EXPERTS, "qwen3_next: expected attention layers, found linear_attention"),
    ("Lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2: expected attention layers, found conv"),
    ("Llama4Text", EXPERTS, "llama4_text: expected attention layers, found chunked_attention"),
    ("GptOss", EXPERTS, "GptOssAttention: expected plain causal attention, found s_aux"),
    ("StableLm", {}, "StableLmAttention: expected the layout of a packed row, found none; the model does not pass it"),
    ("Bloom", {}, "bloom: expected attention by transformers' interface, found the model's own; not supported"),
    (
        "GPTJ",
        {"rotary_dim": 4},
        "gptj: expected attention by transformers' interface, found the model's own; not supported",
    ),
    (
        "RecurrentGemma",
        {},
        "recurrent_gemma: expected packed answers to have the log-probabilities of separate ones, found",
    ),
]


def names(families):
    return [",".join([name, *(f"{key}={value}" for key, value in more.items())]) for name, more, *_ in families]


def make(name, more):
    """A random model of a family, its weights large enough that attention decides what it says."""
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, **more})
    made = transformers.AutoModelForCausalLM.from_config(settings).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(6.0)
    return made


def mixed(seed=0):
    """Prompts and answers of many lengths: answers that are empty, of one token, alone, and three to a prompt."""
    rng = np.random.default_rng(seed)
    lengths = [(6, 5, 8, 3), (2, 1), (9, 0, 7), (4, 1, 0, 1), (3, 4, 4), (7, 12), (1, 2, 6, 1), (5, 0)]
    ids = ([rng.integers(1, 50, n) for n in one] for one in lengths)
    return [Item(prompt, tuple(responses)) for prompt, *responses in ids]


def plain(model, items):
    """All answers' tokens, one answer and one whole forward pass at a time; the log-softmax in float64."""
    found = []
    for item in items:
        for response in item.responses:
            ids = torch.from_numpy(np.concatenate([item.prompt, response]).astype(np.int64))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, len(item.prompt) - 1 : -1].double()
            found.append(logits.log_softmax(-1)[torch.arange(len(response)), ids[len(item.prompt) :]])
    return torch.cat(found)


def close(found, expected, rel=1e-5):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=rel, atol=0.0)


def by_answer(scored):
    return torch.from_numpy(np.concatenate([answer for item in scored for answer in item]))


def policy(model, items, precision):
    """Log-probabilities as training computes them."""
    model.train()
    with autocast(CPU, precision):
        return token_logprobs(model, pack(items))


def gradient(model, loss):
    """By name, zeros where a weight has no part in it."""
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in model.named_parameters()
    }


def close_gradients(found, expected, rel=1e-5):
    """All together, and each weight's own as far as it is more than rounding of the whole."""
    whole = torch.cat([one.flatten() for one in expected.values()]).norm()
    off = {name: (found[name] - one).norm() for name, one in expected.items()}
    assert torch.stack(list(off.values())).norm() < rel * whole
    assert [name for name, one in expected.items() if off[name] > rel * one.norm() + 0.01 * rel * whole] == []


# Against plain forward passes


@torch.no_grad()
def test_equals_plain_forward_passes(model, make_items):
    items = make_items(12, answers=3)
    close(token_logprobs(model, pack(items)), plain(model, items))


@torch.no_grad()
def test_items_with_one_answer_each_equal_plain_forward_passes(model, make_items):
    """Packed, nothing shared."""
    items = make_items(12, answers=1)
    close(token_logprobs(model, pack(items)), plain(model, items))


def test_gradient_equals_the_plain_one(model, make_items):
    """Each answer weighted differently, so that no token's gradient can stand for another's."""
    items = make_items(6)
    weights = torch.linspace(-1.0, 2.0, sum(pack(items).counts), dtype=torch.float64)
    both = (token_logprobs(model, pack(items)), plain(model, items))
    close_gradients(*(gradient(model, (weights * logprobs).sum()) for logprobs in both))


@pytest.mark.parametrize(("name", "more"), FAMILIES, ids=names(FAMILIES))
def test_every_family_equals_its_plain_forward_passes(name, more):
    """Values and the whole gradient."""
    made, items = make(name, more), mixed()
    check_model(made)
    expected = plain(made, items)
    found = token_logprobs(made, pack(items))
    close(found.detach(), expected.detach())
    reads = plain(made, [Item(np.roll(item.prompt, 1) % 49 + 1, item.responses) for item in items]).detach()
    assert (expected.detach() - reads).abs().median() > 0.01  # or nothing would be tested
    weights = torch.linspace(-1.0, 2.0, len(expected), dtype=torch.float64)
    close_gradients(*(gradient(made, (weights * one).sum()) for one in (found, expected)))


@pytest.mark.parametrize(("name", "more"), FAMILIES, ids=names(FAMILIES))
def test_a_shared_prompt_has_the_gradient_of_its_pairs(name, more):
    """Of chosen, rejected and replayed: read together, and as two pairs in batches of their own."""
    made = make(name, more)
    prompt, answers, pairs = mixed()[0].prompt, mixed()[0].responses, [(0, 1), (0, 2)]
    sizes = [sum(len(answers[i]) for i in pair) for pair in pairs]
    values = torch.linspace(-1.0, 2.0, sum(sizes))
    shared = pack([Item(prompt, answers, sides=sum(pairs, ()))])
    together = gradient(made, (values * token_logprobs(made, shared)[shared.side_tokens]).sum())
    apart = [torch.zeros_like(weight) for weight in together.values()]
    for pair, own in zip(pairs, values.split(sizes), strict=True):
        loss = (own * token_logprobs(made, pack([Item(prompt, tuple(answers[i] for i in pair))]))).sum()
        apart = [one + more for one, more in zip(apart, gradient(made, loss).values(), strict=True)]
    close_gradients(together, dict(zip(together, apart, strict=True)))


@torch.no_grad()
def test_order_and_company_do_not_matter(model, make_items):
    items = make_items(8)
    together = token_logprobs(model, pack(items))
    close(torch.cat([token_logprobs(model, pack([item])) for item in items]), together)
    backward = token_logprobs(model, pack(items[::-1])).split(pack(items[::-1]).counts)
    first, second = backward[0::2][::-1], backward[1::2][::-1]
    close(torch.cat([answer for pair in zip(first, second, strict=True) for answer in pair]), together)
    long = Item(np.arange(1, 60, dtype=np.int32), (np.arange(1, 40, dtype=np.int32),))
    close(token_logprobs(model, pack([long, *items]))[39:], together)


@torch.no_grad()
def test_answers_may_stand_in_any_order(model, make_items):
    items = make_items(6, answers=3)
    turned = [Item(item.prompt, item.responses[::-1]) for item in items]
    backward = token_logprobs(model, pack(turned)).split(pack(turned).counts)
    again = [backward[3 * i + j] for i in range(6) for j in (2, 1, 0)]
    close(torch.cat(again), token_logprobs(model, pack(items)))


@torch.no_grad()
def test_eos_is_an_id_as_any_other(model):
    """In the prompt, in the middle of an answer, and as all of it: it separates nothing."""
    items = [
        Item(np.array([5, 0, 9]), (np.array([4, 0, 3, 0]), np.array([0]))),
        Item(np.array([0]), (np.array([0, 0]),)),
    ]
    close(token_logprobs(model, pack(items)), plain(model, items))


@torch.no_grad()
def test_a_token_matters_to_what_attends_to_it_and_to_nothing_else(model):
    """Another id at one place: the bits of all other answers, of the item and of its neighbours, stay as they are."""
    batch = pack(mixed()[:5])
    before = token_logprobs(model, batch)
    for place in range(batch.input_ids.shape[1]):
        ids = batch.input_ids.clone()
        ids[0, place] = (ids[0, place] + 100) % 270
        after = token_logprobs(model, replace(batch, input_ids=ids))
        expected = batch.layout.attends(batch.predictors, torch.tensor(place))
        assert (after != before).tolist() == expected.tolist()


@torch.no_grad()
def test_a_cache_cannot_join_the_items(model, make_items):
    """With the library's default, use_cache=True, items that are packed by positions alone read each other."""
    items = make_items(4, answers=1)
    batch, expected = pack(items), plain(model, items)
    packed = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    off = {}
    for cache in (False, True):
        logits = model(**packed, use_cache=cache).logits[0, batch.predictors].double()
        found = logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        off[cache] = (found - expected).abs().max()
    assert off[False] < 1e-5
    assert off[True] > 0.1
    model.config.use_cache = True
    close(token_logprobs(model, batch), expected)


@torch.no_grad()
def test_no_cache_is_made(model, make_items, monkeypatch):
    forward, asked = model.base_model.forward, []
    monkeypatch.setattr(model.base_model, "forward", lambda **more: asked.append(more) or forward(**more))
    token_logprobs(model, pack(make_items(2)))
    assert [more["use_cache"] for more in asked] == [False]


def test_extreme_logits_stay_finite(model, make_items):
    """The head scaled by 1e4: most probabilities are zero in float32, their logarithms are not infinite."""
    items = make_items(4)
    model.lm_head.weight = torch.nn.Parameter(1e4 * model.lm_head.weight.detach())
    found = token_logprobs(model, pack(items))
    found.sum().backward()
    close(found.detach(), plain(model, items).detach(), rel=1e-4)
    assert found.min() < -1000
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


# Precision


@PRECISIONS
def test_values_are_float32(model, make_items, precision):
    logprobs = policy(model, make_items(3), precision)
    assert logprobs.dtype == torch.float32
    assert {answer.dtype for item in score_items(model, make_items(3), 4096, precision) for answer in item} == {
        np.dtype("f4")
    }


@torch.no_grad()
def test_log_softmax_happens_in_float32(model, make_items):
    """Under bfloat16 the products are rounded, what follows is not: e^log-probabilities still add up to one."""
    prompt = np.array([3, 1, 4], dtype=np.int32)
    every = Item(prompt, tuple(np.array([i], dtype=np.int32) for i in range(270)))
    assert policy(model, [every], "bfloat16").double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    items = make_items(8)
    off = (policy(model, items, "bfloat16") - policy(model, items, "float32")).abs().max()
    assert 1e-4 < off < 0.3


@PRECISIONS
@pytest.mark.parametrize("loss", ["spin", "dpo"])
def test_policy_equal_to_its_reference_gives_log_2_exactly(model, make_items, precision, loss):
    items = make_items(8)
    (order,) = micro_batches([item.lengths for item in items], range(8), 4096)
    items = [items[i] for i in order]
    reference = by_answer(score_items(model, items, 4096, precision))
    logprobs = policy(model, items, precision)
    assert logprobs.requires_grad
    assert torch.equal(logprobs.detach(), reference)
    moved = losses.answer_sums(logprobs - reference, pack(items).counts)
    margin = moved[0::2] - moved[1::2]
    assert margin.tolist() == [0.0] * 8
    assert losses.PREFERENCE[loss](margin, 0.1).tolist() == [torch.tensor(math.log(2)).item()] * 8


# Scoring


@pytest.mark.parametrize("budget", [1, 40, 150, 10_000])
def test_score_returns_items_in_their_order(model, make_items, budget):
    items, told = make_items(9, answers=3), []
    scored = score_items(model, items, budget, "float32", told.append)
    assert [[len(answer) for answer in one] for one in scored] == [[len(r) for r in item.responses] for item in items]
    close(by_answer(scored), plain(model, items).detach())
    assert told == sorted(told)
    assert told[-1] == 9


def test_score_takes_empty_answers_and_items_without_any(model):
    items, told = mixed(), []
    scored = score_items(model, items, 30, "float32", told.append)
    assert [[len(answer) for answer in one] for one in scored] == [[len(r) for r in item.responses] for item in items]
    close(by_answer(scored), plain(model, items).detach())
    assert told[-1] == len(items)
    assert [one.shape for one in score_items(model, items[-1:], 30, "float32")[0]] == [(0,)]


def test_score_leaves_the_model_without_gradients(model, make_items):
    model.train()
    scored = score_items(model, make_items(2), 4096, "float32")
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    scored[0][0][:] = 0.0  # the caller's own array
    assert scored[0][0].base is None


@pytest.mark.parametrize("name", ["Qwen2", "GPT2"])
def test_dropout_is_off_whatever_the_model_says(name, make_items, tmp_path):
    """Policy and reference would differ by it, at every step."""
    rates = {"attention_dropout": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, "vocab_size": 270}, **rates)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    model = folders.load_model(tmp_path, CPU)
    assert torch.equal(policy(model, make_items(4), "float32"), policy(model, make_items(4), "float32"))


# Models that are refused


@pytest.mark.parametrize("key", ["final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"])
def test_a_scaled_or_capped_head_is_refused(model, make_items, key):
    check_model(model)
    setattr(model.config, key, 30.0)
    with pytest.raises(StudyError, match=r"qwen2: expected logits = head.*, found a scaled or capped head"):
        score_items(model, make_items(1), 4096, "float32")


@pytest.mark.parametrize(("name", "more", "line"), REFUSED, ids=names(REFUSED))
def test_what_a_packed_row_cannot_read_is_refused(name, more, line):
    """In one line; and the model is left as it was."""
    made = make(name, more)
    usual, ids = made.config._attn_implementation, torch.arange(1, 6)[None]
    with torch.no_grad():
        before = made(input_ids=ids, use_cache=False).logits
    with pytest.raises(StudyError, match=f"^{line}") as refused:
        check_model(made)
    assert "\n" not in str(refused.value)
    assert made.config._attn_implementation == usual
    with torch.no_grad():
        assert torch.equal(made(input_ids=ids, use_cache=False).logits, before)


@pytest.mark.parametrize("nested", [False, True])
def test_positions_that_follow_the_longest_text_are_refused(model, nested):
    """Beyond the original context the company of an answer would change it."""
    usual = model.config.rope_parameters
    scaled = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model.config.rope_parameters = {"full_attention": scaled} if nested else scaled
    with pytest.raises(
        StudyError, match=r"^qwen2: expected rotary positions that do not depend on the batch, found type dynamic$"
    ):
        check_model(model)
    model.config.rope_parameters = usual
    check_model(model)


def test_attention_dropout_is_refused(make_items):
    """Where a model is trained with it."""
    made = make("Qwen2", {"attention_dropout": 0.1, "vocab_size": 270})
    check_model(made)
    with pytest.raises(StudyError, match=r"^Qwen2Attention: expected plain causal attention, found dropout$"):
        policy(made, make_items(2), "float32")
    assert made.config._attn_implementation == "sdpa"


def test_a_model_that_reads_packed_rows_otherwise_is_refused(model, monkeypatch):
    """Whatever the reason: here, positions that go on from item to item and from answer to answer."""
    check_model(model)

    def counted(items):
        batch = pack(items)
        return replace(batch, position_ids=torch.arange(batch.input_ids.shape[1])[None])

    monkeypatch.setattr(support, "pack", counted)
    with pytest.raises(StudyError, match=r"^qwen2: expected packed answers .* found a difference of 0\.\d+"):
        check_model(model)


# The head


@pytest.fixture
def tiny_chunks(monkeypatch):
    """Two rows at a time, whatever the vocabulary."""
    monkeypatch.setattr(head, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(head, "MIN_ROWS", {"cpu": 2})


def rows_of(rows=7, width=4, vocabulary=11, bias=True, dtype=torch.float64):
    """States, weight and bias of a head, and targets, of which some come twice."""
    torch.manual_seed(0)
    sizes = [(rows, width), (vocabulary, width), (vocabulary,)]
    states, weight, offset = (torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes)
    return states, weight, offset if bias else None, torch.arange(rows) % 3


def written_out(states, weight, bias, targets):
    logits = torch.nn.functional.linear(states, weight, bias)
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def gradients(function, states, weight, bias, targets, *more):
    """Values, and gradients with another factor for each row."""
    found = function(states, weight, bias, targets, *more)
    factors = torch.linspace(-1.0, 2.0, len(targets), dtype=found.dtype)
    return found, *torch.autograd.grad((factors * found).sum(), [states, weight, *([] if bias is None else [bias])])


KEPT = pytest.mark.parametrize("keep", [False, True])
BIAS = pytest.mark.parametrize("bias", [False, True])


@BIAS
@pytest.mark.parametrize("keep", [False, True])
def test_gradient_of_the_head_by_finite_differences(tiny_chunks, bias, keep):
    """Of one forward pass many backward passes: the first uses up what was kept."""
    *inputs, targets = rows_of(bias=bias)

    def chosen(*inputs):
        return head.ChunkedTokenLogprobs.apply(*inputs, targets, torch.float64, keep)

    assert torch.autograd.gradcheck(chosen, inputs)


@BIAS
@KEPT
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_head_in_chunks_is_log_softmax(tiny_chunks, bias, keep, dtype, rel):
    inputs = rows_of(bias=bias, dtype=dtype)
    found = gradients(head.ChunkedTokenLogprobs.apply, *inputs, dtype, keep)
    for one, other in zip(found, gradients(written_out, *inputs), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=rel, atol=rel)


def test_kept_probabilities_are_those_computed_again(tiny_chunks):
    kept, again = (
        gradients(head.ChunkedTokenLogprobs.apply, *rows_of(), torch.float64, keep) for keep in (True, False)
    )
    for one, other in zip(kept, again, strict=True):
        assert torch.equal(one, other)


@KEPT
def test_no_answer_tokens_have_no_log_probabilities(keep):
    found = gradients(head.ChunkedTokenLogprobs.apply, *rows_of(rows=0), torch.float64, keep)
    assert found[0].shape == (0,)
    assert [one.count_nonzero() for one in found] == [0] * 4


def test_weights_that_are_not_trained_get_no_gradient():
    states, weight, bias, targets = rows_of()
    fixed = weight.detach(), bias.detach()
    head.ChunkedTokenLogprobs.apply(states, *fixed, targets, torch.float64, False).sum().backward()
    torch.testing.assert_close(states.grad, gradients_of_states(states, *fixed, targets))


def gradients_of_states(states, weight, bias, targets):
    return torch.autograd.grad(written_out(states, weight, bias, targets).sum(), states)[0]


class Head:
    """What a model's head is to `head_logprobs`."""

    def __init__(self, weight, bias=None):
        self.weight, self.bias = weight, bias

    def get_output_embeddings(self):
        return self


def test_probabilities_are_kept_where_they_are_few_and_a_gradient_is_asked(monkeypatch):
    states, weight, bias, targets = rows_of()
    model = Head(weight, bias)

    def kept():
        return sum(one.numel() for one in head_logprobs(model, states, targets).grad_fn.kept)

    assert kept() == 7 * 11
    monkeypatch.setattr(head, "MAX_KEPT", 7 * 11)
    assert kept() == 7 * 11
    monkeypatch.setattr(head, "MAX_KEPT", 7 * 11 - 1)
    assert kept() == 0


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation makes, views aside."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(found):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return found


def test_logits_of_a_large_vocabulary_are_never_whole(tiny_chunks, monkeypatch):
    """Of 64 rows of 5000 logits no tensor has more than two; the head itself has four columns."""
    monkeypatch.setattr(head, "MAX_KEPT", 0)
    states, weight, _, targets = rows_of(rows=64, vocabulary=5000)
    for dtype in (torch.float64, torch.bfloat16):
        with Largest() as largest, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            head_logprobs(Head(weight), states, targets).sum().backward()
        assert largest.numbers == weight.numel() == 4 * 5000
    with Largest() as largest, torch.no_grad():
        head_logprobs(Head(weight[:, :1]), states[:, :1], targets)
    assert largest.numbers == 2 * 5000
    frozen = Head(weight.detach())
    with Largest() as largest:
        token_divergences(losses.token_kl, Head(weight), states, frozen, states.detach()).sum().backward()
    assert largest.numbers == 4 * 5000
    with Largest() as largest:
        written_out(states, weight, None, targets)
    assert largest.numbers == 64 * 5000


def test_logits_do_not_wait_for_the_backward_pass(tiny_chunks, monkeypatch):
    """What is saved until then are states and heads, not 64 rows of 5000 logits."""
    monkeypatch.setattr(head, "MAX_KEPT", 0)
    states, weight, _, targets = rows_of(rows=64, vocabulary=5000)
    other, saved = Head(weight.detach() + 1.0), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one.numel()) or one, lambda one: one):
        made = head_logprobs(Head(weight), states, targets)
        made = made + token_divergences(losses.token_kl, Head(weight), states, other, states.detach())
        assert sum(saved) < 64 * 5000
        assert not made.grad_fn.next_functions[0][0].kept
        written_out(states, weight, None, targets)
    assert sum(saved) > 64 * 5000


def test_nothing_is_kept_without_a_gradient(monkeypatch):
    asked = []
    monkeypatch.setattr(head.ChunkedTokenLogprobs, "apply", lambda *arguments: asked.append(arguments[-1]))
    states, weight, bias, targets = rows_of()
    head_logprobs(Head(weight, bias), states, targets)
    with torch.no_grad():
        head_logprobs(Head(weight, bias), states, targets)
    assert asked == [True, False]


@pytest.mark.parametrize(("vocabulary", "rows"), [(280, 3744), (50_000, 128), (2**20, 128)])
def test_rows_of_a_chunk(vocabulary, rows):
    """A million logits, but at least so many rows as are worth reading the whole head for."""
    weight = torch.empty(vocabulary, 1, device="meta")
    assert head._chunk_rows(torch.empty_like(weight, device="cpu")) == rows


@KEPT
def test_under_autocast_only_products_are_rounded(tiny_chunks, keep, monkeypatch):
    """Products of bfloat16 numbers, rounded once; the log-softmax of these in float32."""
    monkeypatch.setattr(head, "MAX_KEPT", 1_000_000 * keep)
    states, weight, bias, targets = rows_of(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = head_logprobs(Head(weight, bias), states, targets)
    found.sum().backward()
    product = torch.nn.functional.linear(states.bfloat16(), weight.bfloat16(), bias.bfloat16())
    expected = product.float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (found - written_out(states, weight, bias, targets)).abs().max() > 1e-4
    assert {one.dtype for one in (found, states.grad, weight.grad, bias.grad)} == {torch.float32}


@KEPT
def test_gradient_of_the_head_is_summed_in_float32(tiny_chunks, keep, monkeypatch):
    """A thousand chunks of two rows, of 2 / 3 each: sums in bfloat16 would stay at 256."""
    monkeypatch.setattr(head, "MAX_KEPT", 1_000_000 * keep)
    states = torch.ones(2000, 4, requires_grad=True)
    weight, bias = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        head_logprobs(Head(weight, bias), states, torch.zeros(2000, dtype=torch.int64)).sum().backward()
    assert bias.grad.tolist() == pytest.approx([4000 / 3, -2000 / 3, -2000 / 3], rel=1e-4)
    for column in weight.grad.T.tolist():
        assert column == pytest.approx([4000 / 3, -2000 / 3, -2000 / 3], rel=4e-3)  # each product is rounded


def test_a_head_in_float64_stays_in_it(tiny_chunks):
    states, weight, bias, targets = rows_of()
    assert head_logprobs(Head(weight, bias), states, targets).dtype == torch.float64
    states, weight, bias, targets = rows_of(dtype=torch.bfloat16)
    assert head_logprobs(Head(weight, bias), states, targets).dtype == torch.float32


# Divergences


@PRECISIONS
def test_divergences_are_those_of_whole_logits(model, make_items, tiny_chunks, precision):
    """Values, and gradients of every weight of the policy."""
    batch, reference = pack(make_items(4)), copy.deepcopy(model)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    reference.requires_grad_(False)
    weights, found = torch.linspace(-1.0, 2.0, len(batch.targets)), []
    for chunked in (True, False):
        with autocast(CPU, precision):
            states, others = (answer_states(one, batch) for one in (model, reference))
            if chunked:
                kl = token_divergences(losses.token_kl, model, states, reference, others)
            else:
                kl = losses.token_kl(model.lm_head(states).float(), reference.lm_head(others).float())
        found.append((kl.detach(), gradient(model, (weights * kl).sum())))
    rel = {"float32": 1e-5, "bfloat16": 1e-2}[precision]
    assert found[0][0].dtype == torch.float32
    assert found[0][0].min() > 0.0
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    close_gradients(found[0][1], found[1][1], rel)
    assert all(weight.grad is None for weight in reference.parameters())


def test_a_model_does_not_diverge_from_itself(model, make_items):
    batch = pack(make_items(4))
    states = answer_states(model, batch)
    kl = token_divergences(losses.token_kl, model, states, copy.deepcopy(model), states.detach())
    assert kl.tolist() == [0.0] * len(batch.targets)


def test_divergences_see_the_bias_of_either_head(tiny_chunks):
    states, weight, bias, _ = rows_of()
    other, offset = weight.detach().flip(0), bias.detach() + torch.arange(11)
    kl = token_divergences(losses.token_kl, Head(weight, bias), states, Head(other, offset), states.detach())
    linear = torch.nn.functional.linear
    expected = losses.token_kl(linear(states, weight, bias), linear(states.detach(), other, offset))
    found = [torch.autograd.grad(one.sum(), [states, weight, bias]) for one in (kl, expected)]
    torch.testing.assert_close(kl, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
