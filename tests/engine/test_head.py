"""Log-probabilities and divergences of the head, in chunks."""

import copy

import pytest
import torch
from forwards import CPU, PRECISIONS, close_gradients, gradient
from torch.utils._python_dispatch import TorchDispatchMode

from wspin.engine import head
from wspin.engine.head import head_logprobs, token_divergences
from wspin.engine.logprobs import answer_states, autocast
from wspin.engine.packing import pack
from wspin.train import losses

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
        logprobs = head_logprobs(Head(weight), states, targets)
        logprobs = logprobs + token_divergences(losses.token_kl, Head(weight), states, other, states.detach())
        assert sum(saved) < 64 * 5000
        assert not logprobs.grad_fn.next_functions[0][0].kept
        written_out(states, weight, None, targets)
    assert sum(saved) > 64 * 5000


def test_nothing_is_kept_without_a_gradient(monkeypatch):
    kept = []
    monkeypatch.setattr(head.ChunkedTokenLogprobs, "apply", lambda *arguments: kept.append(arguments[-1]))
    states, weight, bias, targets = rows_of()
    head_logprobs(Head(weight, bias), states, targets)
    with torch.no_grad():
        head_logprobs(Head(weight, bias), states, targets)
    assert kept == [True, False]


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
