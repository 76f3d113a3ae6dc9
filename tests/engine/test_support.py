"""Models that the engine refuses."""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, random_model
from forwards import EXPERTS, make, names, policy

from wspin.engine import support
from wspin.engine.packing import pack
from wspin.engine.support import check_model
from wspin.errors import StudyError
from wspin.logprobs.score import score_items

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # GPTBigCode's own
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
    *(
        (
            "Phimoe",  # its masks alone have the window
            {**EXPERTS, "sliding_window": window},
            r"phimoe: expected packed answers .*, found a difference of .* nat with a sliding window of 3; this",
        )
        for window in (3, 8, 4096)
    ),
    (
        "RecurrentGemma",
        {},
        "recurrent_gemma: expected packed answers to have the log-probabilities of separate ones, found",
    ),
]


@pytest.mark.parametrize("key", ["final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"])
def test_a_scaled_or_capped_head_is_refused(model, make_items, key):
    check_model(model)
    setattr(model.config, key, 30.0)
    with pytest.raises(StudyError, match=r"qwen2: expected logits = head.*, found a scaled or capped head"):
        score_items(model, make_items(1), 4096, "float32")


@pytest.mark.parametrize(("name", "more", "line"), REFUSED, ids=names(REFUSED))
def test_what_a_packed_row_cannot_read_is_refused(name, more, line):
    """In one line; and the model is left as it was."""
    model = make(name, more)
    usual, ids, window = model.config._attn_implementation, torch.arange(1, 6)[None], more.get("sliding_window")
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
    with pytest.raises(StudyError, match=f"^{line}") as refused:
        check_model(model)
    assert "\n" not in str(refused.value)
    assert model.config._attn_implementation == usual
    assert getattr(model.config, "sliding_window", window) == window or window is None
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)


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
    model = make("Qwen2", {"attention_dropout": 0.1, "vocab_size": 270})
    check_model(model)
    with pytest.raises(StudyError, match=r"^Qwen2Attention: expected plain causal attention, found dropout$"):
        policy(model, make_items(2), "float32")
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_reads_packed_rows_otherwise_is_refused(model, monkeypatch):
    """Whatever the reason: here, positions that go on from item to item and from answer to answer."""
    check_model(model)

    def counted(items):
        batch = pack(items)
        return replace(batch, position_ids=torch.arange(batch.input_ids.shape[1])[None])

    monkeypatch.setattr(support, "pack", counted)
    with pytest.raises(StudyError, match=r"^qwen2: expected packed answers .* found a difference of 0\.\d+"):
        check_model(model)


@pytest.mark.parametrize(("name", "more"), [("Mistral", {}), ("Qwen3Moe", {"use_sliding_window": True}), ("Llama", {})])
def test_a_window_of_any_length_is_tested_and_stays_as_it_is(name, more):
    """Read from the config at every call, kept by the attention, or, in Llama, without a meaning."""
    model = make(name, {**more, "sliding_window": 4096})
    check_model(model)
    assert model.config.sliding_window == 4096
    assert {part.sliding_window for part in model.modules() if hasattr(part, "sliding_window")} <= {4096}


def test_a_window_that_the_model_does_not_have_is_refused():
    """OLMoE hands the attention what stands in the config, but its masks have no window."""
    with pytest.raises(StudyError, match=r"^olmoe: expected packed answers .* nat with a sliding window of 3; this"):
        check_model(make("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 4, "sliding_window": 4096}))


def stored(model):
    return {name: (weight.dtype, weight.clone()) for name, weight in model.named_parameters()}


def assert_stored(model, before):
    for name, weight in model.named_parameters():
        assert weight.dtype == before[name][0]
        assert torch.equal(weight, before[name][1])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "more"), [family for family in FAMILIES if family[0] != "Bloom"])
def test_a_model_in_bfloat16_is_tested_in_float32(name, more, tied):
    """Rounding by other kernels, here those of its own attention, is no reason to refuse it."""
    model = random_model(name, {**more, "tie_word_embeddings": tied, "attn_implementation": "eager"}).bfloat16()
    before = stored(model)
    check_model(model)
    assert_stored(model, before)


@pytest.mark.parametrize(("name", "more", "line"), REFUSED, ids=names(REFUSED))
def test_what_a_packed_row_cannot_read_is_refused_in_bfloat16_too(name, more, line):
    model = make(name, more).bfloat16()
    before = stored(model)
    with pytest.raises(StudyError, match=f"^{line}"):
        check_model(model)
    assert_stored(model, before)
