"""What evaluations read: the requests of the fetched suites, counted in a model's tokens.

lm-eval builds the requests of a suite, as an evaluation does; no model is loaded. That takes up to minutes, so counts
are kept in the results, in `.state/preflight`, until the suite, its shots or the tokenizer change.
"""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from wspin.credentials import drop_credentials
from wspin.engine.flops import Work
from wspin.errors import StudyError
from wspin.models import folders, offline
from wspin.storage import provenance
from wspin.storage.files import digest, read_json, sha256, write_checked_json
from wspin.storage.permissions import error_line
from wspin.study.paths import StudyPaths

TOGETHER = 4000  # requests that are counted together: what they share is read once
Suites = dict[tuple[str, str], "RequestCounts"]  # by fetched model and suite


@dataclass(frozen=True)
class RequestCounts:
    """What a suite's requests take, whatever the size of the model."""

    tokens: int  # that scoring passes read, every common beginning once
    pairs: int = 0  # of tokens that attend
    predictions: int = 0
    prompts: int = 0  # to be answered greedily
    prompt_tokens: int = 0  # of all of them
    longest: int = 0  # tokens of the longest prompt and its answer
    alone: int = 0  # tokens that scoring reads request by request, as vLLM does

    @property
    def mean_prompt(self) -> float:
        return self.prompt_tokens / max(1, self.prompts)

    def work(self, shared: bool = True) -> Work:
        """Of the scoring passes: `shared` as here, else as with vLLM, which has the logits of every token."""
        if shared or not self.alone:
            return Work(self.tokens, self.pairs, self.predictions)
        return Work(self.alone, self.pairs * self.alone // max(1, self.tokens), self.alone)


def counted_requests(paths: StudyPaths) -> tuple[Suites, list[str]]:
    """The counts of all suites and fetched models that are there, and what is wrong with suites that cannot be counted.

    New ones are counted in a process without network or credentials: tasks may run code that the study allows.
    """
    keys = {(model, suite): key for suite in paths.study.eval.suites for model, key in _keys(paths, suite)}
    counts = {place: kept for place, key in keys.items() if (kept := _kept(paths, place, key))}
    missing = [place for place in keys if place not in counts]
    problems = []
    if missing:
        with ProcessPoolExecutor(1, get_context("spawn"), _offline) as pool:
            for suite in dict.fromkeys(suite for _, suite in missing):
                models = [model for model, other in missing if other == suite]
                print(f"preflight: counting the requests of {suite} in the tokens of {', '.join(models)}", flush=True)
                try:
                    new = pool.submit(count_suite, paths, suite, models).result()
                except StudyError as error:
                    problems += error.args
                    continue
                except OSError as error:
                    problems.append(error_line(error))
                    continue
                except BrokenProcessPool:
                    found = "the process was killed; give it more memory"
                    problems.append(f"eval.suites.{suite}: expected to count its requests, {found}")
                    break
                for model in models:
                    counts[model, suite] = new[model]
                    _keep(_file(paths, (model, suite)), {"key": keys[model, suite], **asdict(new[model])})
    return counts, problems


def _keep(file: Path, entry: dict[str, Any]) -> None:
    try:
        write_checked_json(file, entry)
    except OSError as error:  # results that one may only read
        print(f"preflight: {error_line(error)}; the counts are not kept", flush=True)


def _offline() -> None:
    """Of the process that counts: without credentials, network, and the progress bars of lm-eval."""
    drop_credentials()
    sys.stderr = io.StringIO()
    offline.import_transformers_offline()


def _keys(paths: StudyPaths, suite: str) -> Iterator[tuple[str, str]]:
    """(fetched model, fingerprint of what its counts depend on) of the models in the tables, if all of it is there.

    Manifests and digests may outlive what they describe, which may be deleted to save disk.
    """
    settings, manifest = paths.study.eval, Path(paths.fetched_manifest(f"tasks/{suite}"))
    heldout = Path(paths.rows_digest("heldout")) if settings.sources[suite].heldout else None
    needed = (manifest, paths.fetched(f"tasks/{suite}"), *((heldout, paths.data("heldout")) if heldout else ()))
    if not all(Path(path).exists() for path in needed):
        return
    files = [sha256(manifest), sha256(heldout) if heldout else None, provenance.versions(("lm_eval",))]
    for model in dict.fromkeys([model, *paths.ancestors(model)][-1] for model in paths.table_models()):
        if Path(paths.manifest(model)).exists() and Path(paths.model(model)).exists():
            template = [paths.template(model), paths.study.dialogue.eos] if heldout else None
            try:
                tokenizer = folders.tokenizer_hash(folders.load_tokenizer(paths.model(model)))
            except StudyError:  # that is a line of `find_model_complaints`
                continue
            yield model, digest([files, settings.suites[suite], settings.seeds, template, tokenizer])


def _file(paths: StudyPaths, place: tuple[str, str]) -> Path:
    return Path(paths.state("preflight", *place) + ".json")


def _kept(paths: StudyPaths, place: tuple[str, str], key: str) -> RequestCounts | None:
    """The kept counts; None if there are none, or others, or with a line if the file is damaged."""
    file, remedy = _file(paths, place), "the requests are counted again"
    try:
        entry = read_json(file, "counted requests", remedy)
        if entry.pop("key", None) != key:
            return None
        if entry.keys() == RequestCounts.__annotations__.keys() and all(isinstance(n, int) for n in entry.values()):
            return RequestCounts(**entry)
        raise StudyError(f"{file}: expected counts of requests, found other entries; {remedy}")
    except FileNotFoundError:
        return None
    except StudyError as damage:
        print(f"preflight: {damage}", flush=True)
        return None


def count_suite(paths: StudyPaths, suite: str, models: Sequence[str]) -> dict[str, RequestCounts]:
    """Model -> the counts of a suite's requests in its tokens. Raises `StudyError` as an evaluation would."""
    from wspin.eval import harness, heldout

    settings, source = paths.study.eval, paths.study.eval.sources[suite]
    counts = {}
    for group in [[model] for model in models] if source.heldout else [models]:
        documents = None
        if source.heldout:
            (model,), rows = group, paths.data("heldout")
            eos, template = paths.study.dialogue.eos, paths.template(model)
            documents = heldout.heldout_documents(rows, template, eos, paths.model(model))
        tasks = Path(paths.fetched(f"tasks/{suite}"))
        options = {"default_tasks": bool(source.hub), "documents": documents, "code": bool(source.code)}
        opened = harness.Suite(suite, tasks, settings.suites[suite], **options)
        tokenizers = {model: folders.load_tokenizer(paths.model(model)) for model in group}
        harness.check_code(opened)
        with harness.working_folder(opened) as folder:
            loaded = harness.load_tasks(opened, folder, settings.seeds)
        requests = [task.instances for tasks in loaded.values() for task in tasks["tasks"].values()]
        counts |= {model: count_requests(requests, tokenizer) for model, tokenizer in tokenizers.items()}
    return counts


def count_requests(tasks: Iterable[Sequence[Any]], tokenizer: Any) -> RequestCounts:
    """The counts of lm-eval's requests, task by task.

    Contexts and answers are tokenised apart: where lm-eval lets a token span their border, it is counted as two.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    totals = [0] * 7
    for requests in tasks:
        scored = [request.args for request in requests if request.request_type == "loglikelihood"]
        scored += [("", *request.args) for request in requests if request.request_type == "loglikelihood_rolling"]
        for first in range(0, len(scored), TOGETHER):
            work, alone = _scoring_work(scored[first : first + TOGETHER], tokenizer)
            totals[:3] = [total + number for total, number in zip(totals, work, strict=False)]
            totals[6] += alone
        answered = [request.args for request in requests if request.request_type == "generate_until"]
        for (_, options), ids in zip(answered, _ids(tokenizer, [text for text, _ in answered]), strict=True):
            totals[3] += 1
            totals[4] += len(ids)
            totals[5] = max(totals[5], len(ids) + normalize_gen_kwargs(options)["max_gen_toks"])
    return RequestCounts(*totals)


def _scoring_work(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> tuple[Work, int]:
    """The work of (context, answer) pairs, and their tokens. An empty context is one token, as in lm-eval."""
    import numpy as np

    from wspin.engine.prefixes import Continuation, needed_work

    contexts = list(dict.fromkeys(context for context, _ in pairs))
    ids = dict(zip(contexts, _ids(tokenizer, contexts), strict=True))
    answers = _ids(tokenizer, [answer for _, answer in pairs], add_special_tokens=False)
    continuations = [
        Continuation(np.array([*(ids[context] or [0]), *answer], dtype=np.int32), len(answer))
        for (context, _), answer in zip(pairs, answers, strict=True)
        if answer
    ]
    work = needed_work(continuations) if continuations else Work(0, 0, 0)
    return work, sum(len(continuation.ids) for continuation in continuations)


def _ids(tokenizer: Any, texts: list[str], **options: Any) -> list[list[int]]:
    return tokenizer(texts, **options)["input_ids"] if texts else []
