"""Answers sampled with vLLM, under the contract of `answer`: ids in, ids out, each prompt with a seed of its own.

No text is tokenized here, and the model's own sampling defaults are ignored. vLLM runs in this process, so a killed job
leaves no process behind. Its CPU build, which the tests use, has no chunked prefill for prompts with seeds ("CPU
Generator does not use offset"), so there a prompt is prefilled at once.
"""

from typing import Any

import torch

from wspin.config.stages import Generate
from wspin.errors import StudyError
from wspin.models import checkpoint
from wspin.models.vllm import import_vllm

from .answer import Answer, OnAnswer, Prompts, RandomSource

SEEDS = 2**31  # a prompt's seed is below this
CPU_BATCHED_TOKENS = 4096  # tokens that the CPU build prefills at once


class VllmEngine:
    """vLLM with the model in a folder. `context`: tokens of the longest prompt and its answer."""

    def __init__(self, folder: str, settings: Generate, eos: int, context: int):
        checkpoint.check_weights(folder)
        vllm = import_vllm("generate")
        if torch.cuda.is_available():
            device = {"gpu_memory_utilization": settings.gpu_memory}
        else:
            tokens = max(CPU_BATCHED_TOKENS, context)
            device = {"enable_chunked_prefill": False, "enforce_eager": True, "max_num_batched_tokens": tokens}
        self.engine = vllm.LLM(
            model=str(folder),
            trust_remote_code=False,
            dtype=settings.dtype,
            max_model_len=context,
            skip_tokenizer_init=True,
            generation_config="vllm",  # its own defaults, not the model's
            enable_prefix_caching=False,  # every prompt occurs once
            **device,
        ).llm_engine
        self.options = {"temperature": settings.temperature, "top_p": settings.top_p}
        self.options |= {"max_tokens": settings.max_new_tokens, "detokenize": False}
        self.options |= {"stop_token_ids": [eos], "ignore_eos": True}  # the study's EOS stops, and no other
        self.sampling, self.eos = vllm.SamplingParams, eos
        self.made_with = {"dtype": settings.dtype, "autocast": settings.dtype, "attention": f"vllm {vllm.__version__}"}

    def generate(self, prompts: Prompts, random_source: RandomSource, on_answer: OnAnswer) -> dict[str, Any]:
        """Answer the prompts; returns the work of it."""
        for i, prompt in enumerate(prompts):
            sampling = self.sampling(**self.options, seed=int(random_source(i).integers(SEEDS)))
            self.engine.add_request(str(i), {"prompt_token_ids": list(prompt)}, sampling)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if output.finished:
                    on_answer(int(output.request_id), self._answer(output.outputs[0]))
        return {"prompt_tokens": sum(map(len, prompts))}

    def _answer(self, output: Any) -> Answer:
        ids = list(output.token_ids)
        stopped = {"stop": True, "length": False}.get(output.finish_reason)
        if stopped is not (ids[-1:] == [self.eos]):
            found = f"{output.finish_reason} with {ids[-1:]}"
            raise StudyError(f"vllm: expected an answer that ends with EOS or at the limit, found {found}; report it")
        return Answer(ids, output.finish_reason)
