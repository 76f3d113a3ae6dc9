"""Log-likelihoods of packed requests against lm-eval's own model, request by request."""

import random

import pytest
import torch
from forwards import make, names
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from wspin.engine.prefixes import Continuation
from wspin.errors import StudyError
from wspin.eval import shared_prefix
from wspin.eval.shared_prefix import SharedPrefixLM
from wspin.models import folders

CONTEXT = 96  # tokens of the models
FAMILIES = [("Qwen2", {}), ("Llama", {}), ("GPT2", {"n_positions": CONTEXT}), ("Mistral", {"sliding_window": 7})]
FAMILIES += [("GPTNeoX", {}), ("OPT", {})]
TOLERANCE = 1e-4  # nat; choices that lie closer are not told apart


@pytest.fixture(scope="module", params=FAMILIES, ids=names(FAMILIES))
def models(request, scratch_model):
    """The same model behind lm-eval's class and ours."""
    name, more = request.param
    tokenizer = folders.load_tokenizer(scratch_model)
    model = make(name, {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, **more})
    options = {"pretrained": model, "tokenizer": tokenizer, "batch_size": 4}
    return HFLM(**options), SharedPrefixLM(**options, token_budget=256)


def instances(pairs):
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


def words(rng, count):
    return " ".join("".join(rng.choices("abcdefghijklmn", k=rng.randint(1, 6))) for _ in range(count))


def every_kind():
    """(context, continuation): choices of one and of many tokens, shared and other contexts, in a drawn order."""
    rng = random.Random(0)
    examples = words(rng, 6)
    pairs = [(f"{examples} {words(rng, 3)}", f" {words(rng, size)}") for size in (1, 3) for _ in range(3)]
    pairs += [(context, f" {words(rng, 2)}") for context, _ in pairs for _ in range(3)]  # many choices of one context
    pairs += [(pairs[0][0], letter) for letter in "ABCD"]  # choices of one token
    pairs += [(f"{examples} {option} runs", " away") for option in ("he", "she")]  # contexts that differ near the end
    pairs += [("", "a b c"), ("", " "), ("x ", " y"), ("tail  ", "spaces")]  # no context; spaces at the border
    pairs += [("naïve café \U0001f600", " \U0001f680 日本語"), ("<|endoftext|>", "a"), ("a", "<|endoftext|>")]
    pairs += [(words(rng, 60), " cut on the left"), (words(rng, 60), words(rng, 20))]  # longer than the context
    pairs += [pairs[0], pairs[3]]  # asked twice
    rng.shuffle(pairs)
    return pairs


def test_every_kind_of_request_has_lm_evals_answer(models):
    theirs, ours = models
    expected = theirs.loglikelihood(instances(every_kind()), disable_tqdm=True)
    found = ours.loglikelihood(instances(every_kind()), disable_tqdm=True)
    for pair, (logprob, greedy), (own_logprob, own_greedy) in zip(every_kind(), expected, found, strict=True):
        assert own_logprob == pytest.approx(logprob, abs=TOLERANCE, rel=1e-6), pair
        assert own_greedy == greedy, pair


def test_a_greedy_continuation_is_known_as_one(models):
    """What the model itself would say, in one and in many tokens, beside what it would not."""
    theirs, ours = models
    requests = []
    for text in ("abc", "abc def", "x y z abc def"):
        context = ours.tok_encode(text)
        ids = theirs.model.generate(torch.tensor([context]), max_new_tokens=6, do_sample=False)[
            0, len(context) :
        ].tolist()
        requests += [
            (("", ""), context, ids[:1]),
            (("", ""), context, ids),
            (("", ""), context, [*ids[:-1], ids[-1] - 1]),
        ]
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in expected] == [greedy for _, greedy in ours._loglikelihood_tokens(requests)]
    assert [greedy for _, greedy in expected] == [True, True, False] * 3


def test_choices_are_decided_as_by_lm_eval(models):
    """`acc` and `acc_norm` of drawn questions, but where two choices lie too close to tell them apart."""
    rng, (theirs, ours) = random.Random(1), models
    questions = [(words(rng, 5), [f" {words(rng, rng.randint(1, 3))}" for _ in range(4)]) for _ in range(25)]
    pairs = [(context, choice) for context, choices in questions for choice in choices]
    both = (lm.loglikelihood(instances(pairs), disable_tqdm=True) for lm in (theirs, ours))
    expected, found = (torch.tensor([logprob for logprob, _ in answers]).reshape(-1, 4) for answers in both)
    for lengths in (1, torch.tensor([len(choice) for _, choice in pairs]).reshape(-1, 4)):
        scores = expected / lengths
        best = scores.sort(-1).values
        clear = best[:, -1] - best[:, -2] > TOLERANCE
        assert clear.sum() > 20
        assert torch.equal(scores.argmax(-1)[clear], (found / lengths).argmax(-1)[clear])


def test_a_text_may_be_divided_in_several_ways(models):
    """Asked together, lm-eval scores the shorter continuation by the first of its tokens' places; alone, rightly."""
    theirs, ours = models
    requests = [(("", ""), [1, 2, 3], [4, 5]), (("", ""), [1, 2, 3, 4], [6]), (("", ""), [1], [2, 3, 4, 5])]
    expected = [theirs._loglikelihood_tokens([request], disable_tqdm=True)[0][0] for request in requests]
    assert [logprob for logprob, _ in ours._loglikelihood_tokens(requests)] == pytest.approx(expected, abs=TOLERANCE)


def test_rolling_windows_are_lm_evals(models):
    texts = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in (words(random.Random(2), 60), "short")]
    expected, found = (lm.loglikelihood_rolling(texts, disable_tqdm=True) for lm in models)
    assert found == pytest.approx(expected, abs=1e-3)


def test_progress_counts_the_requests_done(models):
    _, ours = models
    ours.on_progress, seen = (seen := []).append, seen
    try:
        ours.loglikelihood(instances(every_kind()), disable_tqdm=True)
    finally:
        ours.on_progress = None
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == len(every_kind())


def test_responses_do_not_depend_on_the_token_budget(models, monkeypatch):
    _, ours = models
    whole = ours.loglikelihood(instances(every_kind()), disable_tqdm=True)
    monkeypatch.setattr(ours, "token_budget", 1)  # every request in a row of its own
    alone = ours.loglikelihood(instances(every_kind()), disable_tqdm=True)
    assert [logprob for logprob, _ in alone] == pytest.approx([logprob for logprob, _ in whole], abs=TOLERANCE)


def test_a_context_is_read_once(models, monkeypatch):
    """Four choices of a context of 21 tokens: 33 tokens, not 96."""
    _, ours = models
    sizes = []
    monkeypatch.setattr(shared_prefix, "continuation_logprobs", counting(sizes))
    requests = [(("", ""), [*range(21)], [i] * 4) for i in range(4)]
    ours._loglikelihood_tokens(requests)
    assert sizes == [21 + 4 * 3]


def counting(sizes):
    def count(model, batch):
        sizes.append(batch.input_ids.numel())
        return torch.zeros(len(batch.targets)), torch.zeros(len(batch.targets), dtype=torch.bool)

    return count


def test_a_log_likelihood_that_is_no_number_stops_the_evaluation(models, monkeypatch):
    _, ours = models
    nan = lambda model, batch: (torch.full((len(batch.targets),), torch.nan), torch.zeros(len(batch.targets)) > 0)  # noqa: E731
    monkeypatch.setattr(shared_prefix, "continuation_logprobs", nan)
    with pytest.raises(StudyError, match="expected finite log-likelihoods, found nan; look for NaN"):
        ours._loglikelihood_tokens([(("", ""), [1], [2])])


def test_a_longer_request_keeps_its_end(models):
    _, ours = models
    cut = ours._continuation([*range(90)], [*range(20)])
    assert cut == Continuation(cut.ids, 20)
    assert cut.ids.tolist() == [*range(90), *range(20)][-CONTEXT - 1 :]


# Tokens


def test_texts_are_encoded_as_by_lm_eval(models):
    """Together or one by one; with the prefix token before a text, and with blanks at the border."""
    theirs, ours = models
    pairs = [pair for pair in every_kind() if pair[0]]
    for beforehand in ([], pairs):
        ours._encoded.clear()
        ours.encode_pairs(beforehand)
        assert [ours._encode_pair(*pair) for pair in pairs] == [theirs._encode_pair(*pair) for pair in pairs]
    for text in ("abc def", "<|endoftext|>abc"):
        for options in ({}, {"add_special_tokens": False}, {"add_special_tokens": True}, {"left_truncate_len": 2}):
            assert ours.tok_encode(text, **options) == theirs.tok_encode(text, **options)


def test_a_text_is_encoded_once(models, monkeypatch):
    """Five texts of a question with four choices, whether it is measured, asked, or both; lm-eval encodes eight."""
    _, ours = models
    ours._encoded.clear()
    pairs = [("what is it", f" {choice}") for choice in "abcd"]
    ours.encode_pairs(pairs)
    assert len(ours._encoded) == 5
    monkeypatch.setattr(HFLM, "tok_encode", lambda *_, **__: pytest.fail("encoded again"))
    for pair in pairs * 2:
        ours._encode_pair(*pair)
