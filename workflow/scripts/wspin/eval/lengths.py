"""Requests that are longer than a model's context, counted before the first forward pass.

lm-eval cuts them on the left and goes on: a few-shot prompt loses its first examples, and the score is that of another
prompt. Texts whose log-likelihood is rolling are never cut: lm-eval divides them into windows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wspin.errors import StudyError

# Positions of the context beside prompt and answer: the last token of an answer is no input of a model in
# transformers, while vLLM samples one token more.
EXTRA = {"transformers": -1, "vllm": 1}


class Need(NamedTuple):
    """Tokens that a request takes of the context."""

    whole: int
    least: int  # if all but one token of its prompt is cut


def answer_limit(lm: Any, options: Mapping[str, Any]) -> int:
    """The most tokens of an answer: a model's own `max_new_tokens`, as in transformers, else the task's limit."""
    config = getattr(getattr(lm, "model", None), "generation_config", None)  # vLLM follows the task alone
    return (config and config.max_new_tokens) or _task_limit(lm, options)


def reserved_tokens(lm: Any, options: Mapping[str, Any]) -> int:
    """The room behind a prompt: lm-eval cuts prompts for the task's limit, even where answers end before it."""
    return max(answer_limit(lm, options), _task_limit(lm, options))


def _task_limit(lm: Any, options: Mapping[str, Any]) -> int:
    from lm_eval.models.utils import normalize_gen_kwargs

    return normalize_gen_kwargs(options, lm.max_gen_toks)["max_gen_toks"]


def request_needs(lm: Any, task: Any, engine: str) -> list[Need]:
    """The need of every request of an lm-eval task whose requests are built, in the tokens of the backend `lm`.

    Raises `StudyError` at a prompt or an answer without a token: no model responds to these.
    """
    if hasattr(lm, "encode_pairs"):
        lm.encode_pairs(request.args for request in task.instances if request.request_type == "loglikelihood")
    needs = []
    for request in task.instances:
        place = f"{task.config.task}, document {request.doc_id}"
        if request.request_type == "loglikelihood":
            prompt, answer = map(len, _pair(lm, *request.args))
            _check(f"{place}: expected an answer", answer, request.args[1])
            _check(f"{place}: expected a prompt", prompt, request.args[0])
            needs.append(_need(prompt, answer + EXTRA[engine]))
        elif request.request_type == "generate_until":
            text, options = request.args
            prompt, limit = len(lm.tok_encode(text)), answer_limit(lm, options)
            _check(f"{place}: expected an answer", limit, f"max_gen_toks: {limit}")
            _check(f"{place}: expected a prompt", prompt, text)
            needs.append(_need(prompt, reserved_tokens(lm, options)))
    return needs


def _check(expected: str, tokens: int, text: str) -> None:
    if tokens < 1:
        raise StudyError(f"{expected} of a token or more, found {text!r}; correct the task or its data")


def _pair(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Prompt and answer in tokens, as lm-eval's `loglikelihood` encodes them."""
    if context:
        return lm._encode_pair(context, continuation)
    prefix, ids = [lm.prefix_token_id], lm.tok_encode(continuation, add_special_tokens=False)
    return (ids[:1], ids[1:]) if ids[:1] == prefix else (prefix, ids)


def _need(prompt: int, behind: int) -> Need:
    return Need(prompt + behind, 1 + behind)


def complaints(place: str, needs: Sequence[Need], context: int, shots: int, cut: bool) -> list[str]:
    """What is wrong with the requests of a task in `place`, if any is longer than the context: a line, or none.

    With `cut` it is only wrong if a request leaves no room for a token of its prompt.
    """
    longer = [need.whole for need in needs if need.whole > context]
    full = [need.least for need in needs if need.least > context]
    if full:
        found = f"{len(full)} of {len(needs)} that leave no room for a prompt, up to {max(full)} tokens without it"
        remedy = "leave the task out, or lower its max_gen_toks"
    elif longer and not cut:
        found = f"{len(longer)} of {len(needs)} longer, up to {max(longer)} with {shots} shots"
        fewer = "give fewer shots" if shots else "leave the task out"
        remedy = f"{fewer}, or set eval.too_long to cut, which keeps the end of each and counts them in the scores"
    else:
        return []
    return [f"{place}: expected requests of at most {context} tokens, the model's context, found {found}; {remedy}"]
