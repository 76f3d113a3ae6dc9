"""Requests that no model responds to are refused before the first pass."""

from types import SimpleNamespace

import pytest
from lm_eval.api.instance import Instance

from wspin.config.stages import EvalSettings
from wspin.errors import StudyError
from wspin.eval import language_models, lengths


@pytest.fixture
def lm(scratch_model):
    settings = EvalSettings(
        engine="transformers", autocast="float32", token_budget=64, batch_size=1, seeds=[0, 1234, 1234, 1234]
    )
    return language_models.hugging_face_model(scratch_model, settings, None)


@pytest.mark.parametrize(
    ("kind", "args", "found"),
    [
        ("loglikelihood", (" ", "a"), "a prompt of a token or more, found ' '"),
        ("loglikelihood", ("", "<|endoftext|>"), "an answer of a token or more, found '<|endoftext|>'"),  # the prefix
        ("generate_until", ("", {"max_gen_toks": 4}), "a prompt of a token or more, found ''"),
        ("generate_until", ("a", {"max_gen_toks": 0}), "an answer of a token or more, found 'max_gen_toks: 0'"),
    ],
)
def test_a_request_without_tokens_is_refused_before_the_first_pass(lm, kind, args, found):
    task = SimpleNamespace(
        instances=[Instance(kind, {}, args, 0, ("empty", 3, 1))], config=SimpleNamespace(task="empty")
    )
    with pytest.raises(StudyError) as error:
        lengths.request_needs(lm, task, "transformers")
    assert str(error.value) == f"empty, document 3: expected {found}; correct the task or its data"


def test_an_empty_prompt_may_begin_with_the_prefix_token(lm):
    task = SimpleNamespace(instances=[Instance("loglikelihood", {}, ("", "<|endoftext|>abc"), 0)])
    task.config = SimpleNamespace(task="prefix")
    (need,) = lengths.request_needs(lm, task, "transformers")
    assert need.whole == len(lm.tok_encode("abc"))


@pytest.mark.parametrize(("own", "reserved"), [(None, 24), (6, 24), (40, 40)])
def test_the_models_own_limit_is_counted(lm, own, reserved):
    """Decoding follows it before the task's limit, for which lm-eval keeps room all the same."""
    lm.model.generation_config.max_new_tokens = own
    options = {"max_gen_toks": 24, "until": []}
    task = SimpleNamespace(
        instances=[Instance("generate_until", {}, ("abc", options), 0)], config=SimpleNamespace(task="own")
    )
    prompt = len(lm.tok_encode("abc"))
    assert lengths.request_needs(lm, task, "transformers") == [lengths.Need(prompt + reserved, 1 + reserved)]
    request = lm._request("abc" * lm.max_length, options)
    assert request.limit == (own or 24)
    assert len(request.prompt) == lm.max_length - reserved
