"""CPU time and memory of the stages without a model, at the size of a study.

Texts are those of `preparation`, log-probabilities random: they weigh what real ones do. The teacher has a tokenizer of
its own. A step runs in a process of its own, and of the programs two sizes are measured: what a prompt more takes is
their difference.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import yaml

from .. import ROOT
from ..measure import Clock, Row, in_new_process, of_command, processor
from .memory import resident
from .preparation import EOS, SHAPE, pieces
from .shapes import GENERATED, HUMAN, PROMPT

DIALOGUE = {
    "template": "human-assistant",
    "eos": EOS,
    "max_prompt_tokens": 1024,
    "max_tokens": 2048,
    "eos_on_cut": False,
}
SPARE = 1.2  # rows of the source for each one that is drawn
MODELS = {"student": SHAPE, "teacher": SHAPE.model_copy(update={"vocabulary": 4096})}
WEIGH = {"source": "teacher", "form": "exp_clamp", "k": 1.0, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
WEIGH |= {"upper": 1.5, "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
DOCUMENTS = {  # of a suite: its task, or the subtasks of its group
    "arc": 1172,
    "hellaswag": 10_042,
    "mmlu": 14_042,
    "truthfulqa": 817,
    "winogrande": 1267,
    "gsm8k": 1319,
}
SUBJECTS = 57  # of mmlu
STAGES = {"data": "data", "weigh": "weigh", "items": "train", "weights": "report", "differences": "report"}
DRAWS = 10_000


@dataclass(frozen=True)
class Case:
    prompts: tuple[int, int]
    shard: int
    models: int = 16
    scale: float = 1.0  # of documents and draws


FULL, QUICK = Case((2500, 50_000), 10_000), Case((20, 60), 20, models=3, scale=0.01)


def run(quick: bool, device: str) -> Iterator[Row]:
    case = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        studies = in_new_process(make, Path(folder), case)
        for study in studies:
            for step, quantities in study.steps():
                print(f"bench: scale {study.prompts:,}: {step}", file=sys.stderr, flush=True)
                yield from _rows(step, f"{study.prompts:,} prompts", {"count": study.prompts, **quantities})
        yield from _rows("differences", f"{case.models} models", differences(Path(folder), case))
    yield Row("scale", "machine", "", 0, "processor", processor())


def _rows(step: str, size: str, quantities: dict[str, float]) -> Iterator[Row]:
    resources = yaml.safe_load((ROOT / "config/config.yaml").read_text())["resources"]
    limit = {"limit_bytes": resources[STAGES[step]]["mem_mb"] * 10**6}
    yield from (Row("scale", step, size, 0, *entry) for entry in (quantities | limit).items())


@dataclass(frozen=True)
class Study:
    """The files of one iteration of self-play, which replays another one's pairs."""

    folder: Path
    prompts: int
    shard: int

    def files(self, kind: str) -> list[str]:
        return [str(self.folder / kind / f"{i:02d}.parquet") for i in range(-(-self.prompts // self.shard))]

    @property
    def rows(self) -> Path:
        return self.folder / "prompts.parquet"

    def steps(self) -> Iterator[tuple[str, dict[str, float]]]:
        yield "data", self._data()
        shards = [self._weigh(i) for i in range(len(self.files("weights")))]
        yield "weigh", {name: float(np.mean([shard[name] for shard in shards])) for name in shards[0]}
        yield "items", in_new_process(items, self)
        yield "weights", self._weights_table()

    def _program(self, name: str, *arguments: Any) -> dict[str, float]:
        program = ROOT / f"workflow/scripts/{name}.py"
        return of_command([sys.executable, program, *map(str, arguments)], self.folder / "measured.json")

    def _data(self) -> dict[str, float]:
        from wspin.config.flags import flags
        from wspin.config.stages import Dialogue

        models = self.folder.parent
        return self._program(
            *("data", "prompts", "--source", self.folder / "source", "--split", "train", "--rows", self.prompts),
            *("--fits", models / "student", models / "teacher", "--templates", *[DIALOGUE["template"]] * 2),
            *("--max-new-tokens", 512, "--seed", 42, "--output", self.folder / "drawn.parquet"),
            *("--output-digest", self.folder / "drawn.json", *flags(Dialogue(**DIALOGUE))),
        )

    def _weigh(self, shard: int) -> dict[str, float]:
        from wspin.config.flags import flags
        from wspin.config.weigh import Weigh

        generations, reference, gold, said, output = (
            self.files(kind)[shard] for kind in ("generations", "reference", "gold", "said", "weights")
        )
        return self._program(
            *("weigh", "--rows", self.rows, "--shard", shard, "--shard-size", self.shard, "--seed", 42, 0),
            *("--generations", generations, "--reference", reference, "--positive-logprobs", gold, said),
            *("--output", output, *flags(Weigh(**WEIGH))),
        )

    def _weights_table(self) -> dict[str, float]:
        folders = [
            word for kind in ("weights", "reference", "generations") for word in (f"--{kind}", self.folder / kind)
        ]
        return self._program(
            *("report", "weights", "--prompts", self.rows, "--iterations", "wspin/ite0", *folders),
            *("--shards", *(Path(path).stem for path in self.files("weights"))),
            *("--output", self.folder / "weights.csv"),
        )


def make(folder: Path, case: Case) -> list[Study]:
    """Write models and studies. Answers repeat from shard to shard, prompts do not."""
    from wspin.config.stages import Dialogue
    from wspin.data.chat import ChatTokenizer
    from wspin.models import folders, scratch

    chats = {}
    for name, shape in MODELS.items():
        scratch.make_scratch(shape, [*topics.values()], EOS, 0, folder / name)
        chats[name] = ChatTokenizer(folders.load_tokenizer(folder / name), Dialogue(**DIALOGUE))
    answers = {side: pieces(chats["student"], lengths, case.shard) for side, lengths in SIDES.items()}
    scored = {
        (model, side): [(list(ids), list(ends)) for ids, ends in chat.tokenize_responses(texts)]
        for model, chat in chats.items()
        for side, texts in answers.items()
    }
    studies = [Study(folder / str(count), count, case.shard) for count in case.prompts]
    prompts = pieces(chats["student"], PROMPT, round(SPARE * max(case.prompts)))
    for study in studies:
        _write(study, [f"{i} {text}" for i, text in enumerate(prompts)], answers, scored, chats)
    return studies


SIDES = {"chosen": HUMAN, "rejected": GENERATED}


def _write(study: Study, prompts: list[str], answers: dict[str, list[str]], scored: Any, chats: dict[str, Any]) -> None:
    import pyarrow as pa

    from wspin.storage import tables

    (study.folder / "source").mkdir(parents=True)
    drawn = prompts[: round(SPARE * study.prompts)]
    repeated = {side: [texts[i % study.shard] for i in range(len(drawn))] for side, texts in answers.items()}
    source = pa.table({"prompt": drawn, "response": repeated["chosen"]})
    tables.write_parquet(study.folder / "source/train.parquet", source)
    ids = [f"train-{i}" for i in range(study.prompts)]
    columns = {"prompt_id": ids, "prompt": prompts[: study.prompts], "response": repeated["chosen"][: study.prompts]}
    tables.write(study.rows, "prompts", {**columns, "split": ["train"] * study.prompts}, {})
    for shard in range(len(study.files("weights"))):
        _write_shard(study, shard, prompts, answers, scored, chats)


def _write_shard(
    study: Study, shard: int, prompts: list[str], answers: dict[str, list[str]], scored: Any, chats: dict[str, Any]
) -> None:
    from wspin.models import folders
    from wspin.storage import tables

    rows = range(study.prompts)[shard * study.shard :][: study.shard]
    ids, eos = {"prompt_id": [f"train-{i}" for i in rows]}, chats["student"].eos
    texts = {side: of[: len(rows)] for side, of in answers.items()}
    hashes = {side: tables.texts_hash(prompts[rows.start : rows.stop], of) for side, of in texts.items()}
    made_with = {
        name: {"model": name, "tokenizer": folders.tokenizer_hash(chat.tokenizer), "template": DIALOGUE["template"]}
        | {"autocast": "float32", "layout": "bench", "dtype": "float32", "special_ids": [chat.eos]}
        for name, chat in chats.items()
    }
    rng = np.random.default_rng(shard)

    def tokens(model: str, side: str) -> dict[str, list[Any]]:
        parts = scored[model, side][: len(rows)]
        if model == "student":
            parts = [([*ids, eos], [*ends, len(text)]) for (ids, ends), text in zip(parts, texts[side], strict=True)]
        values = [-rng.exponential(size=len(ids)).astype(np.float32) for ids, _ in parts]
        return {"token_ids": [ids for ids, _ in parts], "ends": [ends for _, ends in parts], "logprobs": values}

    def write(kind: str, schema: str, columns: dict[str, Any], metadata: dict[str, Any], replays: int = 0) -> None:
        path = Path(study.files(kind)[shard])
        path.parent.mkdir(exist_ok=True)
        tables.write(path, schema, {**ids, **columns}, metadata, replays)

    own = {side: tokens("student", side) for side in texts}
    answered = {"response": texts["rejected"], "token_ids": own["rejected"]["token_ids"]}
    answered["finish_reason"] = ["stop"] * len(rows)
    write("generations", "generations", answered, made_with["student"])
    sides = {**own, "replayed": own["rejected"]}
    columns = {f"{side}_{part}": values for side, parts in sides.items() for part, values in parts.items()}
    more = {"eos": eos, "tokenizer_size": len(chats["student"].tokenizer), "texts": hashes["chosen"]}
    write("reference", "reference", columns, made_with["student"] | more, replays=1)
    for kind, side in (("gold", "chosen"), ("said", "rejected")):
        write(kind, "logprobs", tokens("teacher", side), made_with["teacher"] | {"texts": hashes[side]})
    (study.folder / "weights").mkdir(exist_ok=True)


def items(study: Study) -> dict[str, float]:
    """What the items of a training take, this iteration's pairs and replayed ones: bytes above the process before."""
    from wspin.config.stages import Dialogue, TrainedAnswers
    from wspin.data.chat import ChatTokenizer
    from wspin.models import folders
    from wspin.train.inputs import TrainingFiles, training_sets

    chat = ChatTokenizer(folders.load_tokenizer(study.folder.parent / "student"), Dialogue(**DIALOGUE))
    expected = {"tokenizer": folders.tokenizer_hash(chat.tokenizer), "model": "student", "layout": "bench"}
    expected |= {"template": DIALOGUE["template"], "autocast": "float32"}
    weights = study.files("weights")
    files = TrainingFiles(str(study.rows), study.files("reference"), [weights, weights])
    before = resident("VmRSS")
    with (clock := Clock()):
        sets = training_sets("wspin", files, TrainedAnswers(replays=1), chat, expected)
    assert [len(pairs) for pairs in sets] == [study.prompts] * 2
    kept = {"kept_bytes": resident("VmRSS") - before, "bytes": resident("VmHWM") - before}
    return {"pairs": 2 * study.prompts, "cpu_seconds": clock.cpu, **kept}


def differences(folder: Path, case: Case) -> dict[str, float]:
    """Every model against the first, over all suites, by the program."""
    models = [f"arm{i // 4}/ite{i % 4}" for i in range(case.models)]
    for seed, model in enumerate(models):
        for suite, documents in DOCUMENTS.items():
            _write_scores(folder / model / "scores", suite, max(60, round(case.scale * documents)), seed)
    output = [folder / f"differences.{suffix}" for suffix in ("csv", "md")]
    command = ["--results", folder, "--models", *models, "--suites", *DOCUMENTS]
    command += ["--metrics", *(f"{suite}=acc,none" for suite in DOCUMENTS)]
    command += ["--against", *(f"{model}={models[0]}" for model in models[1:])]
    command += ["--bootstrap", round(case.scale * DRAWS), "--seed", 42, "--confidence", 0.95]
    command += ["--output", *output, "--averages", folder / "averages.csv"]
    program = [sys.executable, ROOT / "workflow/scripts/report.py", "differences"]
    return {"count": len(models), **of_command([*program, *map(str, command)], folder / "measured.json")}


def _write_scores(folder: Path, suite: str, documents: int, seed: int) -> None:
    """Scores and samples of a model that is right by chance."""
    from wspin.eval.results import write_samples

    leaves = [f"mmlu_{i:02d}" for i in range(SUBJECTS)] if suite == "mmlu" else [suite]
    values = np.random.default_rng([seed, documents]).integers(0, 2, documents)
    of_leaves = dict(zip(leaves, np.array_split(values, len(leaves)), strict=True))
    rows = [
        {"task": leaf, "doc_id": i, "filter": "none", "metrics": json.dumps({"acc": float(value)})}
        | {"doc_hash": f"{leaf} {i}".ljust(64, "0"), "prompt_hash": f"{leaf} {i} prompt".ljust(64, "0")}
        | {"target_hash": "", "target": "A", "answer": "B"}
        for leaf, of_leaf in of_leaves.items()
        for i, value in enumerate(of_leaf)
    ]
    entries = {leaf: _result(of_leaf) for leaf, of_leaf in of_leaves.items()}
    result = entries[suite] if len(leaves) == 1 else {**_result(values), "subtasks": entries}
    made_with = {"suite": suite, "model": f"model {seed}", "engine": "transformers", "dtype": "float32"}
    made_with |= {"autocast": "float32", "token_budget": 1, "batch_size": 1, "seeds": [0], "versions": {}}
    made_with |= {"template": None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{suite}.json").write_text(json.dumps({**made_with, "tasks": {suite: result}}))
    write_samples(folder / f"{suite}.samples.parquet", rows, made_with)


def _result(values: Sequence[int]) -> dict[str, Any]:
    fixed = {"shots": 0, "version": "1", "n": len(values), "prompt_hash": "same"}
    return {**fixed, "metrics": {"acc,none": float(np.mean(values))}, "stderr": {"acc,none": 0.01}}
