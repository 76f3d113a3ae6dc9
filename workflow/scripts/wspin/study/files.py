"""The files of a study: what each is called, and where it lies."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from wspin.config.published import PublishedTable
from wspin.config.sources import Source
from wspin.config.study import Study
from wspin.iteration import Iteration

from .lineage import Lineage

GOLD = "gold"  # in place of a response set: the real answers
PREFERENCE_SIDES = ("preferences.chosen", "preferences.rejected")  # or the answers of one side of the preference pairs


def alternatives(names: Iterable[str]) -> str:
    """A pattern that matches the names and nothing else, the longest first; no names match nothing."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


def shown(caption: str, category: str, name: str) -> dict[str, Any]:
    """How Snakemake's report shows a file: its caption, as the rules name it, its category and name."""
    return {"caption": f"../workflow/report/{caption}.rst", "category": category, "labels": {"page": name}}


class StudyFiles(Lineage):
    """Paths of one study, and the relations behind them."""

    def __init__(self, study: Study):
        super().__init__(study)
        self.results = study.results

    # Files

    @cache
    def shards(self, rows: str = "prompts") -> list[str]:
        """Shard names of the study's prompts, or of its preference `pairs`: they follow from the config alone."""
        source = self.study.data.sft if rows == "prompts" else self.study.data.preferences
        count = -(-getattr(source, rows) // source.shard)
        width = max(2, len(str(count - 1)))
        return [f"{i:0{width}d}" for i in range(count)]

    def model(self, name: str) -> str:
        return f"{self.results}/{name}/model"

    def manifest(self, name: str) -> str:
        return f"{self.results}/{name}/manifest.json"

    def metrics(self, name: str) -> str:
        return f"{self.results}/{name}/metrics.jsonl"

    def files(self, folder: str, kind: str, rows: str = "prompts") -> list[str]:
        return [self.file(folder, kind, shard) for shard in self.shards(rows)]

    def file(self, folder: str, kind: str, shard: str) -> str:
        return f"{self.results}/{folder}/{kind}/{shard}.parquet"

    def scores(self, model: str) -> list[str]:
        return [f"{self.results}/{model}/scores/{suite}.json" for suite in self.study.eval.suites]

    def fetched(self, dataset: str) -> str:
        return f"{self.results}/fetched/{dataset}"

    def fetched_manifest(self, dataset: str) -> str:
        return f"{self.fetched(dataset)}.json"

    def source(self, dataset: str) -> Source:
        """Where a data set comes from; one whose rows are `from` another has that one's source."""
        entry = getattr(self.study.data, dataset)
        return getattr(self.study.data, getattr(entry, "from_", None) or dataset)

    def data(self, name: str) -> str:
        return f"{self.results}/data/{name}.parquet"

    def rows_digest(self, name: str) -> str:
        """What tracks the rows of `data(name)`: another file with equal rows re-runs nothing."""
        return f"{self.results}/data/{name}.json"

    def log(self, *place: str) -> str:
        """The log of a job, by its stage, what the job is about and its shard."""
        return f"{self.results}/logs/{'/'.join(place)}.log"

    def tables(self) -> list[str]:
        names = [f"{name}.{kind}" for name in ("scores", "differences") for kind in ("csv", "md", "tex", "html")]
        names += [f"{name}.{kind}" for name in ("tests", "weights") for kind in ("csv", "md", "html")]
        names += [f"reproduction.{kind}" for kind in ("csv", "md", "html") if self.published_tables()]
        names += ["examples.md"]
        pooled = self.pooled_tables("csv", "md", "tex", "html")
        return [*(f"{self.report_folder('tables')}/{name}" for name in names), *pooled]

    def pooled_tables(self, *kinds: str) -> list[str]:
        """The table of replicates in these formats, in a study that has some."""
        names = [f"pooled.{kind}" for kind in kinds if self.replicate_pairs()]
        return [f"{self.report_folder('tables')}/{name}" for name in names]

    def published_csv(self) -> list[str]:
        """The table of published numbers beside ours, in a study that has some."""
        return [f"{self.report_folder('tables')}/reproduction.csv"] if self.published_tables() else []

    def published_tables(self) -> list[PublishedTable]:
        """Published tables by their names here, with the rows beside models that our tables show, by model.

        Without those of `published_elsewhere`.
        """
        shown, tables, elsewhere = {*self.table_models(), *self.study.arms}, [], self.published_elsewhere()
        for _, table in sorted(self.study.report.published.items()):
            if table in elsewhere:
                continue
            rows = {name: row for name, row in sorted(table.rows.items()) if name in shown}
            tables += [table.model_copy(update={"rows": rows})] if rows else []
        return tables

    def published_elsewhere(self) -> list[PublishedTable]:
        """Published tables that are about another base model than the one that `start` comes from."""
        tables = [table for _, table in sorted(self.study.report.published.items()) if table.base]
        return [table for table in tables if table.base != self.study.models[self.root].hub]

    @property
    def root(self) -> str:
        """The model that `start` was trained from, or itself."""
        return [self.study.start, *self.ancestors(self.study.start)][-1]

    def published_files(self) -> list[str]:
        """The files of published numbers that stand beside ours."""
        return list(dict.fromkeys(table.file for table in self.published_tables()))

    def figures(self) -> list[str]:
        folder, names = self.report_folder("figures"), ("averages", "pooled", "rewards", "weights", "lengths")
        return [f"{folder}/{name}.{kind}" for name in names for kind in ("pdf", "svg", "png")]

    def token_page(self, iteration: Iteration) -> str:
        """The page of an iteration's token weights."""
        return f"{self.results}/{iteration.name}/tokens.html"

    def answers_page(self) -> str:
        """The page of the models' answers to the first prompts."""
        return f"{self.report_folder('pages')}/answers.html"

    def pages(self) -> list[str]:
        return [self.answers_page(), *map(self.token_page, self.weighted_iterations())]

    def report_folder(self, kind: str) -> str:
        """Where this study's `tables`, `figures` or `logs/report` lie: beside those of others with its results."""
        return "/".join(filter(None, (self.results, kind, self.study.report.folder)))

    def curves(self) -> list[str]:
        """The training curve of every iteration."""
        return [self.metrics(model) for model in self.iteration_models()]

    def all_scores(self) -> list[str]:
        return [path for model in self.table_models() for path in self.scores(model)]

    def all_samples(self) -> list[str]:
        return [self.samples(path) for path in self.all_scores()]

    def samples(self, scores: str) -> str:
        """The answers behind a file of scores."""
        return f"{scores.removesuffix('.json')}.samples.parquet"

    def weight_folders(self) -> dict[str, list[str]]:
        """Folders of every iteration's token weights, and of the references and generations they belong to, by kind."""
        owners = {"weights": self.weights_folder, "reference": self.reference_folder, "generations": self.response_set}
        return {
            kind: [f"{self.results}/{owner(iteration)}/{kind}" for iteration in self.weighted_iterations()]
            for kind, owner in owners.items()
        }

    def weight_files(self, shards: Sequence[str] = ()) -> list[str]:
        """The files in `weight_folders`, each once; of some shards or of all."""
        folders = dict.fromkeys(folder for kind in self.weight_folders().values() for folder in kind)
        return [f"{folder}/{shard}.parquet" for folder in folders for shard in shards or self.shards()]

    def histogram_files(self) -> list[str]:
        """The token weights of every iteration and their references, each file once."""
        folders = self.weight_folders()
        distinct = dict.fromkeys([*folders["weights"], *folders["reference"]])
        return [f"{folder}/{shard}.parquet" for folder in distinct for shard in self.shards()]

    def length_files(self) -> list[str]:
        """All generated answers, and references that hold the real ones."""
        answers = [path for responses in self.response_sets() for path in self.files(responses, "generations")]
        return [*answers, *self.files(self.real_reference, "reference")]

    @property
    def real_reference(self) -> str:
        """The folder of a reference, which holds the real answers in the student's tokens."""
        return self.reference_folder(self.all_iterations()[0])

    def opponents(self) -> dict[str, str]:
        """A name for every opponent's response set, with the seed where the model answered with an earlier one too."""
        named: dict[str, str] = {}
        for responses in self.response_sets():
            model = self.generator(responses)
            named.setdefault(f"{model}, seed {self.draw_seed(responses)[0]}" if model in named else model, responses)
        return named

    def shown_answers(self) -> dict[str, str]:
        """The file with a model's answers to the first prompts, of all models of the tables but replicates.

        An opponent has answered them for the study; others answer them for their readers alone.
        """
        replicates = {other for _, other in self.replicate_pairs()}
        shown = [name for name in self.table_models() if not {name, name.rpartition("/")[0]} & replicates]
        opponents = {name: self.file(of, "generations", self.shards()[0]) for name, of in self.opponents().items()}
        return {name: opponents.get(name, f"{self.results}/{name}/examples.parquet") for name in shown}

    def silent_models(self) -> list[str]:
        """The models of `shown_answers` that are nobody's opponent."""
        return [name for name in self.shown_answers() if name not in self.opponents()]

    def example_answers(self) -> list[str]:
        return [self.file(responses, "generations", self.shards()[0]) for responses in self.opponents().values()]

    def example_files(self) -> list[str]:
        """The first shards of all answers, and of the files in `weight_folders`."""
        return [*self.example_answers(), *self.weight_files(self.shards()[:1])]

    def fits_models(self) -> list[str]:
        return [self.model(name) for name in self.study.data.fits]

    def fits_manifests(self) -> list[str]:
        return [self.manifest(name) for name in self.study.data.fits]

    def state(self, stage: str, *names: str) -> str:
        """Where the job of these wildcards keeps what it resumes from; its program adds a fingerprint."""
        return "/".join([self.results, ".state", stage, *names])

    def all_models(self) -> list[str]:
        return [self.model(name) for name in (*self.study.models, *self.iteration_models())]

    def targets(self) -> dict[str, list[str]]:
        """Every iteration's target, `<results>/{arm}/ite{k}`, with the files that it gathers."""
        iterations = [iteration for arm in self.study.arms for iteration in self.iterations(arm)]
        return {f"{self.results}/{iteration.name}": self.iteration_files(iteration) for iteration in iterations}

    def iteration_files(self, iteration: Iteration) -> list[str]:
        """What the target of an iteration gathers."""
        name, answers = iteration.name, self.files(self.response_set(iteration), "generations")
        weighted = self.study.weighted(iteration.arm)
        weights = self.files(self.weights_folder(iteration), "weights") if weighted else []
        return [*answers, *weights, self.model(name), self.manifest(name), self.metrics(name), *self.scores(name)]
