"""Evaluation against lm-eval's `HFLM`: the same requests of the study's six suites, which compute the same scores.

The model goes on with the next smaller id after every token, though the rest of it is random: so some answers are the
greedy ones, and generated answers have the lengths that the benchmark sets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wspin.config.sources import Scratch
from wspin.engine.flops import Cost, Work
from wspin.engine.packing import Batch
from wspin.engine.prefixes import Continuation, needed_work, pack_row, plan_rows
from wspin.eval.shared_prefix import SharedPrefixLM

from ..measure import Clock, Row, interleaved
from ..peers import harness
from . import cost, shapes
from .suites import SUITES, Document, Request, Suite, documents, questions

GENERATED = "gsm8k"
BATCH = 16  # `eval.batch_size` of the study
COUNTED_BUDGET = 16_384  # tokens of a row, of the study
MAX_GENERATED = 256  # tokens, `max_gen_toks` of lm-eval
UNTIL = ["Question:", "</s>", "<|im_end|>"]  # of lm-eval's gsm8k
AGREE = {"cpu": 1e-3, "cuda": np.inf}  # nats between log-likelihoods; bfloat16 on a GPU


@dataclass(frozen=True, kw_only=True)
class EvaluationCase:
    """Documents of every suite, and how they are read."""

    shape: Scratch
    documents: Mapping[str, int]
    rounds: int
    token_budget: int
    batch_sizes: tuple[int, ...] = (1, 4, BATCH)  # of log-likelihoods
    generation_sizes: tuple[int, ...] = (4, BATCH)  # one answer at a time is slower than four
    scale: float = 1.0  # of all lengths

    def suite(self, name: str) -> Suite:
        return SUITES[name].of(self.documents[name], self.scale)


SMALL = shapes.Shape(vocabulary=32_768, hidden=256, layers=4, heads=4, intermediate=704)  # 12 million parameters
FULL = EvaluationCase(
    shape=SMALL,
    documents={"hellaswag": 4, "arc": 4, "truthfulqa": 8, "winogrande": 16, "mmlu": 24, "gsm8k": 32},
    rounds=3,
    token_budget=4096,
)
GPU = EvaluationCase(  # about a minute, for `make check-gpu`
    shape=shapes.LARGE,
    documents={"hellaswag": 16, "arc": 16, "truthfulqa": 50, "winogrande": 64, "mmlu": 96, "gsm8k": 16},
    rounds=1,
    token_budget=COUNTED_BUDGET,
    batch_sizes=(BATCH, 32),
    generation_sizes=(BATCH,),
)
QUICK = EvaluationCase(
    shape=shapes.MINUTE,
    documents={"hellaswag": 2, "arc": 2, "truthfulqa": 4, "winogrande": 4, "mmlu": 4, "gsm8k": 4},
    rounds=1,
    token_budget=128,
    batch_sizes=(2, 4),
    generation_sizes=(2, 4),
    scale=1 / 16,
)


def run(quick: bool, device: str) -> Iterator[Row]:
    if device == "cpu" and not quick:
        yield from counted()
    yield from measure(QUICK if quick else {"cpu": FULL, "cuda": GPU}[device], device)


def counted(suites: Mapping[str, Suite] = SUITES) -> Iterator[Row]:
    """Work of the whole suites for the study's student, by count alone: needed, ours, and lm-eval's."""
    price = Cost.of(cost.shape_only(cost.STUDENT))
    for name, suite in suites.items():
        if name == GENERATED:
            continue
        requests = all_requests(documents(suite, shapes.LARGE.vocabulary))
        flops = {"": needed(price, requests), "ours": computed(price, requests, COUNTED_BUDGET)}
        flops |= {f"HFLM, batch {size}": price.flops(harness.work(requests, size)) for size in (1, BATCH)}
        yield Row("evaluation", name, "", 0, "counted_documents", suite.documents)
        yield Row("evaluation", name, "", 0, "counted_requests", len(requests))
        yield from (Row("evaluation", name, contender, 0, "counted_flops", value) for contender, value in flops.items())


def needed(price: Cost, requests: Sequence[Request]) -> int:
    """FLOPs of reading every different beginning once, and of the logits that predict an answer."""
    return price.flops(needed_work(_continuations(requests)))


def computed(price: Cost, requests: Sequence[Request], token_budget: int) -> int:
    """FLOPs of our packed rows, padding included; only causal kernels skip what lies above the diagonal."""
    continuations = _continuations(requests)
    return sum(_row_flops(price, pack_row(continuations, row)) for row in plan_rows(continuations, token_budget))


def _row_flops(price: Cost, batch: Batch) -> int:
    pairs = 0
    for bucket in batch.layout.buckets:
        (count, queries), keys = bucket.queries.shape, bucket.keys.shape[1]
        pairs += count * (keys * (keys + 1) // 2 if bucket.square else queries * keys)
    return price.flops(Work(batch.input_ids.numel(), pairs, len(batch.predictors.unique())))


def _continuations(requests: Sequence[Request]) -> list[Continuation]:
    return [Continuation(np.array([*context, *ids], dtype=np.int32), len(ids)) for _, context, ids in requests]


def all_requests(of_documents: Sequence[Document]) -> list[Request]:
    return [request for document in of_documents for request in document]


def measure(case: EvaluationCase, device: str = "cpu") -> Iterator[Row]:
    """All contenders in turn, suite by suite."""
    network = model(case.shape, device)
    for name in case.documents:
        task = (Generation if name == GENERATED else MultipleChoice)(case, name, network, device)
        yield from (Row("evaluation", name, "", 0, *entry) for entry in task.sizes().items())
        warm_up = int(device == "cuda" and name != GENERATED)  # of generation it would cost too much
        yield from interleaved("evaluation", name, task.contenders(), case.rounds, warm_up)


def model(shape: Scratch, device: str = "cpu") -> Any:
    """Random weights, but that the row of the head for an id is the embedding of the next larger one.

    Weights are scaled so that an embedding is about as large as what the layers add to it, whatever the width.
    """
    import torch

    result = shapes.model(shape, device=device).eval()
    result.config.tie_word_embeddings = False
    embeddings = result.get_input_embeddings().weight
    with torch.no_grad():
        for weights in result.base_model.layers.parameters():
            weights *= 16 / shape.hidden**0.5 if weights.ndim == 2 else 1.0
        embeddings *= shape.hidden**-0.5 / embeddings.std()
        result.lm_head.weight = torch.nn.Parameter(embeddings.roll(-1, 0))
    return result


def tokenizer(vocabulary: int) -> Any:
    """A word for every id: texts and ids are the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<eos>", UNTIL[0], *(f"w{token}" for token in range(2, vocabulary))]
    words = {word: token for token, word in enumerate(words)}
    whole = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<eos>", pad_token="<eos>")


def language_models(case: EvaluationCase, model: Any, device: str, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Ours, and lm-eval's at every batch size, in one precision."""
    from lm_eval.models.huggingface import HFLM

    options = {"pretrained": model, "tokenizer": tokenizer(case.shape.vocabulary)}
    options |= {"mixed_precision_dtype": "bfloat16" if device == "cuda" else None, "softmax_dtype": "float32"}
    options_of_ours = {"token_budget": case.token_budget, "batch_size": max(batch_sizes)}
    ours = SharedPrefixLM(**options, **options_of_ours, trust_remote_code=False)
    theirs = {size: HFLM(**options, batch_size=size, trust_remote_code=False) for size in batch_sizes}
    return {"ours": ours, **{f"HFLM, batch {size}": lm for size, lm in theirs.items()}}


class Task:
    """A suite's requests, answered by our language model and by lm-eval's; answers are compared with the first's."""

    def __init__(self, case: EvaluationCase, name: str, model: Any, device: str):
        self.case, self.suite, self.device = case, case.suite(name), device
        self.price = Cost.of(model)
        batch_sizes = case.generation_sizes if name == GENERATED else case.batch_sizes
        self.language_models = language_models(case, model, device, batch_sizes)
        self.first_answers: Any = None

    def contenders(self) -> dict[str, Callable[[], dict[str, Any]]]:
        return {name: partial(self.answer, name) for name in self.language_models}

    def sizes(self) -> dict[str, Any]:
        return {"documents": self.suite.documents}

    def answer(self, name: str) -> dict[str, Any]:
        """Seconds of a contender, and how its answers differ from those of the first."""
        clock = Clock(self.device)
        with clock:
            answers = self.ask(self.language_models[name])
        self.first_answers = self.first_answers or answers
        return {**clock.quantities(), **self.compare(answers, self.first_answers), **self.work(name)}


class MultipleChoice(Task):
    """Log-likelihoods of every document's choices."""

    def __init__(self, case: EvaluationCase, name: str, model: Any, device: str):
        super().__init__(case, name, model, device)
        self.documents = documents(self.suite, case.shape.vocabulary)
        self.requests = all_requests(self.documents)

    def sizes(self) -> dict[str, Any]:
        sizes = {"requests": len(self.requests), "needed": needed(self.price, self.requests)}
        return super().sizes() | sizes

    def work(self, name: str) -> dict[str, Any]:
        if name == "ours":
            return {"flops": computed(self.price, self.requests, self.case.token_budget)}
        return {"flops": self.price.flops(harness.work(self.requests, self.language_models[name].batch_size))}

    def ask(self, language_model: Any) -> list[tuple[float, bool]]:
        return language_model._loglikelihood_tokens(self.requests, disable_tqdm=True)

    def compare(self, answers: Sequence[tuple[float, bool]], first: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        """The largest difference of log-likelihoods, in nats, and the shares of equal decisions."""
        differences = [abs(a - b) for (a, _), (b, _) in zip(answers, first, strict=True)]
        assert max(differences) <= AGREE[self.device], f"log-likelihoods differ by {max(differences):.2g}"
        decisions = [a == b for a, b in zip(self._choices(answers), self._choices(first), strict=True)]
        greedy = [a == b for (_, a), (_, b) in zip(answers, first, strict=True)]
        shares = {"decisions": float(np.mean(decisions)), "greedy": float(np.mean(greedy))}
        return {"difference": max(differences), **shares, "are_greedy": sum(flag for _, flag in answers)}

    def _choices(self, answers: Sequence[tuple[float, bool]]) -> list[int]:
        """The likeliest choice of every document."""
        likelihoods = iter([likelihood for likelihood, _ in answers])
        return [int(np.argmax([next(likelihoods) for _ in document])) for document in self.documents]


class Generation(Task):
    """Greedy answers up to a stop string."""

    def __init__(self, case: EvaluationCase, name: str, model: Any, device: str):
        from lm_eval.api.instance import Instance

        super().__init__(case, name, model, device)
        options = {"until": UNTIL, "do_sample": False, "temperature": 0.0, "max_gen_toks": MAX_GENERATED}
        decode = self.language_models["ours"].tokenizer.decode
        texts = [decode(ids) for ids in questions(self.suite, case.shape.vocabulary)]
        self.requests = [Instance("generate_until", {}, (text, options), 0) for text in texts]

    def work(self, name: str) -> dict[str, Any]:
        return {}

    def ask(self, language_model: Any) -> list[str]:
        return language_model.generate_until(self.requests, disable_tqdm=True)

    def compare(self, answers: Sequence[str], first: Sequence[str]) -> dict[str, Any]:
        same = float(np.mean([a == b for a, b in zip(answers, first, strict=True)]))
        return {"decisions": same, "tokens": sum(len(answer.split()) for answer in answers)}
