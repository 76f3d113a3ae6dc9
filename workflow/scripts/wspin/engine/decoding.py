"""Continuous batching over one preallocated KV cache: a finished sequence frees its slot for a waiting prompt.

Works with every causal model of transformers that has a KV cache; masks are the library's own.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .cache import SlotCache
from .sampling import Sampling

# Share of the slots that must be free before waiting prompts take them: prefilling several prompts together is faster.
REFILL = 1 / 8

# Tokens of a pass over prompts, by device: a CPU's caches hold no more, and a GPU is busy with as many.
PASS_TOKENS = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Request:
    """A prompt, the most tokens of its answer, and whether an answer ends with its last token."""

    prompt: Sequence[int]
    limit: int
    ends: Callable[[list[int]], bool]


@dataclass(frozen=True)
class Work:
    """The cost of some answers. A slot-step is one sequence's part in one decoding step; the others count tokens."""

    slot_steps: int
    useful_slot_steps: int  # those that gave a token of an answer
    prompt_tokens: int
    computed_prompt_tokens: int  # with padding

    @property
    def useful(self) -> float:
        """Useful share of the slot-steps; one if there were none."""
        return self.useful_slot_steps / self.slot_steps if self.slot_steps else 1.0


@torch.inference_mode()
def decode(
    model: Any,
    requests: Sequence[Request],
    sampling: Sampling,
    slots: int,
    on_answer: Callable[[int, list[int]], None],
    beginning: Sequence[int] = (),
) -> Work:
    """Answer all requests, at most `slots` at a time; `on_answer` gets a request's index and its answer as it ends.

    Waiting prompts take free slots, the longest first: if memory is short, the first step shows it. All prompts begin
    with the tokens of `beginning` and go on; it is prefilled once. The model's own sampling defaults (penalties, top_k)
    are ignored.
    """
    model.eval()
    waiting = deque(sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt), i)))
    slots, useful = min(slots, len(requests)), 0
    columns = max((len(request.prompt) + request.limit - 1 for request in requests), default=0)
    batch = RunningBatch(model, sampling, slots, columns, beginning)
    while waiting or batch.sequences:
        free = slots - len(batch.sequences)
        if waiting and free >= max(1, slots * REFILL):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            batch.admit([RunningSequence(i, requests[i], sampling.uniforms(i)) for i in chosen])
        else:
            batch.step()
        for sequence in batch.release():
            useful += len(sequence.ids) - 1  # prefilling gives the first token
            on_answer(sequence.index, sequence.ids)
    return Work(batch.slot_steps, useful, sum(len(request.prompt) for request in requests), batch.prompt_tokens)


@dataclass
class RunningSequence:
    """A prompt and its answer so far. The last token's keys are not in the cache yet."""

    index: int  # of the request
    request: Request
    uniforms: Sequence[float]
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.ids)

    @property
    def has_ended(self) -> bool:
        return len(self.ids) == self.request.limit or self.request.ends(self.ids)


class RunningBatch:
    """The running sequences, in the first slots of a cache of `slots` times `columns` tokens.

    The beginning of all prompts, if they have one, lies in a slot of its own, the last.
    """

    def __init__(self, model: Any, sampling: Sampling, slots: int, columns: int, beginning: Sequence[int] = ()):
        self.model, self.sampling = model, sampling
        self.sequences: list[RunningSequence] = []
        self.cache = SlotCache(slots + bool(beginning), columns)
        self.window = self.cache.window
        self.slot_steps, self.prompt_tokens, self.beginning = 0, len(beginning), len(beginning)
        if beginning:
            self.window.slot = slots
            self._logits([list(beginning)], [0])
            self.window.slot = self.window.end = 0

    def admit(self, sequences: list[RunningSequence]) -> None:
        """Prefill the slots behind the running ones, the longest prompt first, and sample the first tokens."""
        while sequences:
            width = sequences[0].length - self.beginning
            count = max(1, PASS_TOKENS[self.model.device.type] // width)
            self._prefill(sequences[:count])
            sequences = sequences[count:]

    def _prefill(self, sequences: list[RunningSequence]) -> None:
        """Admit sequences in one pass.

        No prompt may be longer than the running sequences: its tokens end in the same column.
        """
        self._shift()
        longest = max(sequence.length for sequence in sequences)
        end, width = self.window.end if self.sequences else longest, longest - self.beginning
        self.window.slot, self.window.begin, self.window.end = len(self.sequences), end - longest, end - width
        for slot, sequence in enumerate(sequences, len(self.sequences)) if self.beginning else ():
            self.cache.copy_beginning(slot, end - sequence.length, max(0, sequence.length - width))
        self._forward(sequences, [[0] * (width - s.length) + list(s.request.prompt[-width:]) for s in sequences])
        self.window.slot = self.window.begin = 0
        self.sequences += sequences
        self.prompt_tokens += len(sequences) * width

    def step(self) -> None:
        """Sample one token for every sequence."""
        if self.window.end == self.window.columns:
            self._shift()
        self._forward(self.sequences, [sequence.ids[-1:] for sequence in self.sequences])
        self.slot_steps += len(self.sequences)

    def release(self) -> list[RunningSequence]:
        """Remove and return the finished sequences; sequences from the last slots move into theirs."""
        finished = [sequence.has_ended for sequence in self.sequences]
        released = [sequence for sequence, done in zip(self.sequences, finished, strict=True) if done]
        count = len(self.sequences) - len(released)
        holes = [slot for slot in range(count) if finished[slot]]
        movers = [slot for slot in range(count, len(finished)) if not finished[slot]]
        for hole, slot in zip(holes, movers, strict=True):
            self.sequences[hole] = self.sequences[slot]
            self.cache.move(slot, hole)
        del self.sequences[count:]
        return released

    def _forward(self, sequences: list[RunningSequence], ids: list[list[int]]) -> None:
        """Run the model on `ids` (sequences, new), padded on the left, and append a token to each sequence."""
        end = self.window.past + len(ids[0])
        logits = self._logits(ids, [end - sequence.length for sequence in sequences])
        uniforms = [s.uniforms[len(s.ids)] for s in sequences] if self.sampling.temperature else []
        for sequence, token in zip(sequences, self.sampling.tokens(logits, uniforms), strict=True):
            sequence.ids.append(token)

    def _logits(self, ids: list[list[int]], starts: list[int]) -> Tensor:
        """Logits (sequences, vocabulary) after `ids` (sequences, new); a sequence starts in its column of `starts`."""
        past, new, device = self.window.past, len(ids[0]), self.model.device
        self.window.padded = any(starts)
        # A step waits for the GPU once only: where the sampled ids come back.
        columns = torch.arange(past + new, device=device)
        start = torch.tensor(starts)[:, None].to(device, non_blocking=True)
        logits = self.model(
            input_ids=torch.tensor(ids).to(device, non_blocking=True),
            attention_mask=columns >= start if self.window.padded else None,  # None: grouped heads need no copies
            position_ids=(columns[past:] - start).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.window.end += new
        return logits

    def _shift(self) -> None:
        """Move the sequences left over the columns that none of them uses."""
        self.cache.shift(len(self.sequences), max((sequence.length - 1 for sequence in self.sequences), default=0))
