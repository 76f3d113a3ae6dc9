"""The flags of the report's rules: what tables, figures and pages show, by the names of the rules' wildcards."""

from collections.abc import Sequence

from wspin.iteration import Iteration

from .paths import StudyPaths

VARIED = {  # by the key `replicates`
    "generation and training": "sampled answers, random weights, order of training; they share SFT, prompts, teacher",
    "all": "SFT, sampled answers, random weights, order of training; they share prompts, teacher",
}


class ReportFlags:
    """Flags of the report's programs; every method is named after a rule."""

    def __init__(self, paths: StudyPaths):
        self.paths, self.study = paths, paths.study

    def report_scores(self) -> list[str]:
        return [*self._tables(), *self._replicates(), *self._seeds()]

    def _tables(self) -> list[str]:
        groups = [f"{group}={','.join(names)}" for group, names in (self.study.report.groups or {}).items()]
        return [*self._shown_scores(), *(["--groups", *groups] if groups else [])]

    def _shown_scores(self) -> list[str]:
        metrics = [f"{task}={metric}" for task, metric in sorted(self.study.report.metrics.items())]
        tasks = ["--suites", *sorted(self.study.eval.suites), "--metrics", *metrics]
        return ["--results", self.study.results, "--models", *self.paths.table_models(), *tasks]

    def report_differences(self) -> list[str]:
        settings = self.study.report
        against = ["--against", *(f"{model}={baseline}" for model, baseline in self.paths.comparisons())]
        if uncompared := self.paths.uncompared():
            against += ["--uncompared", *uncompared]
        draws = ["--bootstrap", str(settings.bootstrap), "--seed", str(self.study.seed)]
        return [*self._tables(), *against, *draws, "--confidence", str(settings.confidence)]

    def report_tests(self) -> list[str]:
        settings = self.study.report
        baseline = self.paths.replicates(settings.baseline)[0]
        firsts = [arm for arm in self.paths.arms if self.paths.replicates(arm)[0] == arm != baseline]
        contrasts = ["--contrasts", *(f"{arm}={baseline}" for arm in firsts)] if firsts else []
        registered = ["--preregistration", settings.preregistration] if settings.preregistration else []
        draws = ["--draws", str(settings.bootstrap), "--seed", str(self.study.seed)]
        compared = [*contrasts, *self._replicates(), *self._seeds()]
        return [*self._tables(), *compared, *draws, *registered, *self._varied()]

    def report_reproduction(self) -> list[str]:
        tables = []
        for published in self.paths.published_tables():
            rows = [f"{model}={row}" for model, row in published.rows.items()]
            tables += ["--table", published.file, published.table, *rows]
        level = ["--confidence", str(self.study.report.confidence)]
        return [*self._shown_scores(), *level, *self._replicates(), *self._published_elsewhere(), *tables]

    def _published_elsewhere(self) -> list[str]:
        """A note about the tables that do not stand beside this study."""
        by_base: dict[str, list[str]] = {}
        for table in self.paths.published_elsewhere():
            by_base.setdefault(table.base, []).append(f"{table.table} of {table.file}")
        start = self.study.models[self.paths.root].hub or self.paths.root
        parts = [f"{', '.join(tables)} ({base})" for base, tables in by_base.items()]
        return ["--note", f"Left out, about another base model than {start}: {'; '.join(parts)}."] if parts else []

    def report_figure(self) -> list[str]:
        published = [word for path in self.paths.published_csv() for word in ("--published", path)]
        return [*published, "--confidence", str(self.study.report.confidence), *self._replicates()]

    def report_pooled(self) -> list[str]:
        against = ["--against", *(f"{model}={baseline}" for model, baseline in self.paths.pooled_comparisons())]
        level = ["--confidence", str(self.study.report.confidence)]
        return [*self._tables(), *against, *level, *self._replicates(), *self._varied()]

    def report_rewards(self) -> list[str]:
        return ["--iterations", *self.paths.iteration_models(), *self._replicates()]

    def _seeds(self) -> list[str]:
        names = [*self.paths.arms, *self.study.eval.models]
        return ["--seeds", *(f"{name}={self.paths.seed(name)}" for name in names)]

    def _replicates(self, arms: Sequence[str] = ()) -> list[str]:
        """Pairs of a replicate with the first of its family; of some arms, or of all arms and models."""
        found = [pair for pair in self.paths.replicate_pairs() if not arms or pair[1] in arms]
        pairs = [f"{first}={replicate}" for first, replicate in found]
        return ["--replicates", *pairs] if pairs else []

    def _varied(self) -> list[str]:
        """What replicates have in common, for readers of a table."""
        arms = (
            f"Replicates of an arm differ in {VARIED[self.study.replicates]}, where these have no seeds of their own."
        )
        note = f"{arms} Those of other models differ in the order of training alone."
        return ["--note", note] if self.paths.replicate_pairs() else []

    def report_weights(self) -> list[str]:
        return ["--shards", *self.paths.shards(), *self._weighted_iterations()]

    def report_histograms(self) -> list[str]:
        replicates = self._replicates(list(filter(self.study.weighted, self.study.arms)))
        return ["--shards", *self.paths.shards(), *self._weighted_iterations("weights", "reference"), *replicates]

    def report_lengths(self) -> list[str]:
        iterations, results = self.paths.all_iterations(), self.study.results
        folders = [f"{results}/{self.paths.response_set(iteration)}/generations" for iteration in iterations]
        names = ["--iterations", *self.paths.iteration_models(), "--generations", *folders]
        real = ["--real", f"{results}/{self.paths.real_reference}/reference"]
        return ["--shards", *self.paths.shards(), *names, *real, *self._replicates()]

    def report_tokens(self, arm: str, k: str) -> list[str]:
        name = Iteration(arm, int(k)).name
        sources = self.paths.weight_sources(name, self.paths.shards()[0]).items()
        files = [word for flag, paths in sources if paths for word in (f"--{flag}", *paths)]
        scorers = zip(("positive", "negative"), self.paths.scorer_pair(name), strict=True)
        return ["--iteration", name, *files, *(word for role, s in scorers if s for word in (f"--{role}", s))]

    def report_answers(self) -> list[str]:
        shown = self.paths.shown_answers()
        count = ["--count", str(self.study.report.examples)]
        return [*count, "--models", *shown, "--answers", *shown.values()]

    def report_examples(self) -> list[str]:
        answers = ["--opponents", *self.paths.opponents(), "--answers", *self.paths.example_answers()]
        shown = ["--count", str(self.study.report.examples), "--shards", self.paths.shards()[0]]
        return [*shown, *answers, *self._weighted_iterations()]

    def _weighted_iterations(self, *kinds: str) -> list[str]:
        """Weighted iterations with their folders; of some kinds, or of all."""
        iterations, folders = self.paths.weighted_iterations(), self.paths.weight_folders()
        words = [word for kind in kinds or folders for word in (f"--{kind}", *folders[kind])]
        return ["--iterations", *(iteration.name for iteration in iterations), *words]
