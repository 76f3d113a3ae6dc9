"""The models that lm-eval's tasks ask: transformers and vLLM behind lm-eval's interface."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wspin.config.base import Precision
from wspin.config.stages import Dialogue, EvalSettings
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import PLACE
from wspin.models import checkpoint, folders


def hugging_face_model(
    folder: str | Path, settings: EvalSettings, eos: str | None, dtype: Precision = "float32"
) -> Any:
    """lm-eval's backend for transformers; with `eos`, prompts and answers are tokenised as in training.

    Matrix products and the weights of linear layers have the precision `settings.autocast`, other weights `dtype`; a
    `dtype` of bfloat16 is that of all.
    """
    model, tokenizer = folders.load_model(folder, folders.best_device(), dtype), folders.load_tokenizer(folder)
    backend, options = _backend(model, settings)
    if eos is None:
        return backend(pretrained=model, tokenizer=tokenizer, trust_remote_code=False, **options)

    class Conversation(backend):
        def encode_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
            """Nothing: `_encode_pair` asks for other texts."""

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            """Tokenised apart, as in `data.chat`; by default lm-eval lets a token span the border between the two."""
            closed = [self.tokenizer.eos_token_id] if continuation.endswith(eos) else []
            return chat.text_ids(context), [*chat.tokenize_response(continuation.removesuffix(eos))[0], *closed]

    tokenizer.eos_token = eos  # lm-eval stops on it
    tokenizer.split_special_tokens = True  # as in `data.chat`: special tokens in a user's text stay text
    folders.check_eos(model, tokenizer.eos_token_id, folder)
    chat = ChatTokenizer(tokenizer, Dialogue.model_construct(template=PLACE, eos=eos))
    options["add_bos_token"] = False
    return Conversation(pretrained=model, tokenizer=tokenizer, trust_remote_code=False, **options)


def _backend(model: Any, settings: EvalSettings) -> tuple[type, dict[str, Any]]:
    """lm-eval's class for a model on the shared-prefix engine, or its own where the engine does not support the model.

    With the options of the class.
    """
    from lm_eval.models.huggingface import HFLM

    from wspin.engine.attention import Unsupported
    from wspin.engine.support import check_model

    from .shared_prefix import SharedPrefixLM

    logging.getLogger(HFLM.__module__).addFilter(_is_news)
    options: dict[str, Any] = {"batch_size": settings.batch_size}
    options["softmax_dtype"] = "float32"  # lm-eval would normalise in the precision of the products
    if "bfloat16" in (settings.autocast, str(model.dtype).removeprefix("torch.")):
        options["mixed_precision_dtype"] = "bfloat16"
    try:
        check_model(model)
    except Unsupported as reason:
        print(f"eval: {reason}; every choice is read with its context, by lm-eval's own passes", flush=True)
        return HFLM, options
    return SharedPrefixLM, options | {"token_budget": settings.token_budget}


def _is_news(record: logging.LogRecord) -> bool:
    """Whether lm-eval says more than that it is given a model that is loaded already, which it says twice."""
    return "`pretrained`" not in record.getMessage()


def vllm_model(folder: str | Path, settings: EvalSettings, dtype: Precision = "float32") -> Any:
    """lm-eval's backend for vLLM, weights and products in the precision `settings.autocast`, or in a rounded `dtype`.

    Raises `StudyError` if vLLM is not installed, or a tensor is missing.
    """
    import torch

    from wspin.models.vllm import import_vllm

    checkpoint.check_weights(folder)
    import_vllm("eval")
    from lm_eval.models.vllm_causallms import VLLM

    options = {} if torch.cuda.is_available() else {"enforce_eager": True}
    options |= {"dtype": settings.weights_precision(dtype), "max_model_len": folders.context_length(folder)}
    return VLLM(str(folder), batch_size=settings.batch_size, trust_remote_code=False, **options)
