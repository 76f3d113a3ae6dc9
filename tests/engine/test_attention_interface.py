"""Packed attention behind transformers' interface: what of a model is refused, and which kernel it gets."""

from contextlib import nullcontext
from types import SimpleNamespace

import forwards
import pytest
import torch
import transformers
from attention_states import bucketed, states_of

from wspin.engine import attention
from wspin.engine.attention import shared_prefix
from wspin.engine.layout import PackedLayout
from wspin.engine.logprobs import autocast
from wspin.errors import StudyError


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"head_mask": torch.zeros(1)}, "head_mask"),
        ({"dropout": 0.1}, "dropout"),
        ({"attention_mask": torch.zeros(1)}, "attention_mask"),
        ({"dropout": 0.1, "softcap": 50.0}, "softcap, dropout"),
    ],
)
@pytest.mark.parametrize("forward", [attention._bucketed_attention, attention._flex_attention])
def test_more_than_plain_causal_attention_is_refused(forward, options, names):
    layout = PackedLayout.of([(3, 2)])
    call = {"attention_mask": None, "scaling": None, "layout": layout, **options}
    with pytest.raises(StudyError, match=f"^SimpleNamespace: expected plain causal attention, found {names}$"):
        forward(SimpleNamespace(), *states_of(layout), **call)


def test_what_asks_for_nothing_is_let_through():
    layout = PackedLayout.of([(3, 2)])
    more = {"softcap": None, "s_aux": None, "dropout": 0.0, "is_causal": True, "use_cache": False}
    found, weights = attention._bucketed_attention(
        SimpleNamespace(), *states_of(layout), None, scaling=None, layout=layout, **more
    )
    assert torch.equal(found, bucketed(layout, states_of(layout)))
    assert weights is None


@pytest.mark.parametrize("forward", [attention._bucketed_attention, attention._flex_attention])
def test_attention_without_a_layout_is_refused(forward):
    with pytest.raises(StudyError, match=r"^SimpleNamespace: expected the layout of a packed row, found none"):
        forward(SimpleNamespace(), *states_of(PackedLayout.of([(3, 2)])), None, scaling=None)


def test_a_window_must_be_where_the_config_says():
    """Or a model's own idea of its layers would be lost in silence."""
    layout = PackedLayout.of([(3, 2)])
    config = SimpleNamespace(layer_types=["full_attention", "sliding_attention"])
    full, sliding = (SimpleNamespace(config=config, layer_idx=index) for index in (0, 1))
    assert bucketed(layout, states_of(layout), None, module=full).shape == (1, 5, 4, 8)
    assert bucketed(layout, states_of(layout), 2, module=sliding).shape == (1, 5, 4, 8)
    with pytest.raises(
        StudyError,
        match=r"^SimpleNamespace: layer 0: expected full_attention as in layer_types, found sliding window 2$",
    ):
        bucketed(layout, states_of(layout), 2, module=full)
    with pytest.raises(
        StudyError,
        match=r"^SimpleNamespace: layer 1: expected sliding_attention as in layer_types, found sliding window None$",
    ):
        bucketed(layout, states_of(layout), None, module=sliding)


@pytest.mark.parametrize("usual", ["sdpa", "eager"])
def test_the_model_is_given_back_as_it_was(model, usual):
    model.set_attn_implementation(usual)
    ids = torch.arange(5)[None]
    before = model(input_ids=ids).logits
    with shared_prefix(model):
        assert model.config._attn_implementation == attention.BUCKETED
        with pytest.raises(StudyError, match=r"^Qwen2Attention: expected the layout"):
            model(input_ids=ids)
    assert model.config._attn_implementation == usual
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_model_is_given_back_after_an_error(model):
    with pytest.raises(ZeroDivisionError), shared_prefix(model):
        _ = 1 / 0
    assert model.config._attn_implementation == "sdpa"


def test_one_may_stand_within_another(model):
    with shared_prefix(model):
        with pytest.raises(ZeroDivisionError), shared_prefix(model):
            _ = 1 / 0
        assert model.config._attn_implementation == attention.BUCKETED
    assert model.config._attn_implementation == "sdpa"


def test_without_a_gpu_nothing_is_compiled(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    with shared_prefix(model):
        assert model.config._attn_implementation == attention.BUCKETED


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, nullcontext])
def test_whether_flex_attention_compiles_is_tried_with_gradients(monkeypatch, capsys, context):
    """Wherever it is asked first: `check_model` runs without them, and its answer is kept."""
    shapes = []

    def flex(module, *states, **more):
        shapes.append([tuple(one.shape) for one in states[:3]])
        return attention._bucketed_attention(module, *states, **more)

    monkeypatch.setattr(attention, "_flex_attention", flex)
    with context():
        assert attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
    assert shapes == [[(1, 4, 300, 16), (1, 2, 300, 16), (1, 2, 300, 16)]]
    assert capsys.readouterr().out == ""


def test_where_flex_attention_does_not_compile_the_log_says_so(capsys):
    """On a CPU it has no backward pass."""
    assert not attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
    assert capsys.readouterr().out.startswith("attention: FlexAttention does not compile here (")


def test_past_the_limit_of_compilations_there_is_an_error():
    """In place of a kernel that computes all scores at once."""
    from torch._dynamo import config

    with config.patch(fail_on_recompile_limit_hit=False, recompile_limit=8):
        attention._flex_compiles.__wrapped__(torch.device("cpu"), 4, 2, 16)
        assert (config.fail_on_recompile_limit_hit, config.recompile_limit) == (True, attention.RECOMPILATIONS)


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_flex_attention_gets_states_of_one_type(monkeypatch, precision, dtype):
    """Under autocast the keys are float32 by their positions, and the values bfloat16 by their projection."""
    found = []

    def forward(module, *states, scaling):
        found.extend(one.dtype for one in states[:3])
        return states[0], None

    monkeypatch.setattr(attention, "flex_attention_forward", forward)
    layout = PackedLayout.of([(3, 2)])
    query, key, value = (one.float() for one in states_of(layout))
    with autocast(torch.device("cpu"), precision):
        attention._flex_attention(SimpleNamespace(), query, key, value.to(dtype), None, None, layout=layout)
    assert found == [dtype] * 3


@pytest.mark.parametrize(
    ("settings", "shape"), [({}, (4, 2, 8)), ({"num_key_value_heads": None, "head_dim": 32}, (4, 4, 32))]
)
def test_heads_have_the_shape_of_the_config(settings, shape):
    model = SimpleNamespace(config=transformers.Qwen3Config(**{**forwards.SMALL, **settings}))
    assert attention._head_shape(model) == shape
