"""lm-eval's model for transformers, whose greedy answers come from the engine's running batch.

lm-eval decodes a batch until its longest answer ends. Here an answer leaves with its stop string, another takes its
place, and the examples with which all prompts begin are read once. What is asked stays lm-eval's: its tokens,
its truncation, its stop strings, its text. At batch size 1 `HFLM` has the same answers; in larger batches it may go on
behind a special token that only ends the text, so that its answer depends on the others.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from transformers import GenerationConfig

from wspin.engine.decoding import Request, decode
from wspin.engine.sampling import Sampling
from wspin.engine.stopping import StopStrings
from wspin.errors import StudyError
from wspin.models import checks

from .lengths import answer_limit, reserved_tokens

MIN_BEGINNING = 32  # tokens that all prompts share; a shorter beginning is read with each prompt

# Options of a model's `generation_config` that leave the choice of the likeliest token as it is.
TOKENS = {"bos_token_id", "eos_token_id", "pad_token_id"}
LIMITS = {"max_length", "max_new_tokens"}
SAMPLING = {"do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
OUTPUT = {"use_cache", "cache_implementation", "output_attentions", "output_hidden_states", "output_scores"}
OUTPUT |= {"output_logits", "return_dict_in_generate", "transformers_version", "_from_model_config"}
HARMLESS = TOKENS | LIMITS | SAMPLING | OUTPUT


class ContinuousBatchingLM(HFLM):
    """lm-eval's `HFLM`; greedy answers are decoded `batch_size` at a time."""

    on_progress: Callable[[int], None] | None = None  # called with the number of requests done

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text of every answer before its first stop string."""
        answers: dict[int, str] = {}
        obstacles = [_model_obstacle(self) or _request_obstacle(request.args[1]) for request in requests]
        for obstacle, count in Counter(filter(None, obstacles)).items():
            print(f"eval: {count} answers by lm-eval's own generation, because of {obstacle}", flush=True)
        if others := [i for i, obstacle in enumerate(obstacles) if obstacle]:
            texts = super().generate_until([requests[i] for i in others], disable_tqdm)
            answers |= dict(zip(others, texts, strict=True))
        self._decode({i: requests[i].args for i, obstacle in enumerate(obstacles) if not obstacle}, answers)
        return [answers[i] for i in range(len(requests))]

    def _decode(self, pairs: dict[int, tuple[str, dict[str, Any]]], answers: dict[int, str]) -> None:
        """Add the answers to these pairs of prompt and options."""
        indices, requests = list(pairs), [self._request(*pair) for pair in pairs.values()]

        def add(number: int, ids: list[int]) -> None:
            index = indices[number]
            answers[index] = postprocess_generated_text(self.tok_decode(ids), self._until(pairs[index][1]), None)
            self.cache_hook.add_partial("generate_until", pairs[index], answers[index])
            if self.on_progress:
                self.on_progress(len(answers))

        beginning = _common_beginning([request.prompt for request in requests])
        precision = self.mixed_precision_dtype
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            decode(self.model, requests, Sampling(), self.batch_size, add, beginning)

    def _request(self, context: str, options: dict[str, Any]) -> Request:
        """The prompt's last tokens that leave room for the answer, which ends as lm-eval ends it."""
        reserved = reserved_tokens(self, options)
        room = self.max_length - reserved
        if room < 1:
            raise StudyError(
                f"max_gen_toks: expected less than {self.max_length}, the model's context, found {reserved}"
            )
        ids, _ = self.tok_batch_encode([context], left_truncate_len=room, truncation=self.truncation)
        eos = set(checks.as_list(self.model.generation_config.eos_token_id))
        has_stop = StopStrings(partial(self.tok_decode, skip_special_tokens=False), self._until(options))
        return Request(ids[0].tolist(), answer_limit(self, options), lambda ids: ids[-1] in eos or has_stop(ids))

    def _until(self, options: dict[str, Any]) -> list[str]:
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        return handle_stop_sequences(normalize_gen_kwargs(options)["until"], eos)


def _common_beginning(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all prompts begin and go on, if sharing them pays."""
    tokens = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    beginning = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, tokens)]
    return beginning if len(prompts) > 1 and len(beginning) >= MIN_BEGINNING else []


def _model_obstacle(lm: HFLM) -> str | None:
    """What of a model is not greedy decoding."""
    model, defaults = lm.model, GenerationConfig._get_default_generation_params()
    if lm.think_end_token is not None:
        return "think_end_token"
    for name, value in model.generation_config.to_diff_dict().items():
        if name not in HARMLESS and value is not None and value != defaults.get(name, False):
            return f"generation_config.{name}={value} of the model"
    return None


def _request_obstacle(options: dict[str, Any]) -> str | None:
    """What of a request is not greedy decoding."""
    greedy = {"do_sample": False, "temperature": 0.0}
    for name, value in normalize_gen_kwargs(options).items():
        if name not in ("until", "max_gen_toks") and (name not in greedy or value != greedy[name]):
            return f"{name}={value} of the task"
    return None
