"""The flags that each rule gives to its program, by the names of the rule's wildcards.

They hold the sections a job depends on, per-iteration values resolved, and nothing else: Snakemake compares them, so
what stands here is what re-runs a job, and what does not (GPUs, threads, memory, the name of an arm) is free to change.
"""

import json
from functools import cache

from wspin.config.flags import flags
from wspin.config.scorers import SHIFTED, Scorer
from wspin.config.sources import Model, Preferences, Sft, Source, TaskSource
from wspin.config.stages import UNTRACKED, Dialogue, Generate, TrainedAnswers
from wspin.iteration import Contrast, Iteration

from .files import PREFERENCE_SIDES
from .report_flags import ReportFlags


class RuleFlags(ReportFlags):
    """Flags of one study's programs; every method is named after a rule."""

    def fetch(self, model: str) -> list[str]:
        entry = self.study.models[model]
        if not entry.scratch:
            return _source(entry)
        settings = json.dumps(entry.scratch.model_dump(), sort_keys=True)
        text = ["--split", self.study.data.sft.split, "--eos", self.study.dialogue.eos]
        return ["--scratch", settings, *text, "--seed", str(self.study.seed)]

    def untracked_fetch_flags(self, model: str) -> list[str]:
        """What a model is checked against, which changes none of its files."""
        entry, eos = self.study.models[model], []
        if model in self.paths.policies and not entry.scratch:
            eos = ["--eos", self.study.dialogue.eos]
        elif model in self.paths.answering_models:
            eos = ["--eos", entry.eos or self.study.dialogue.eos]
        return ["--template", self.paths.template(model), *eos]

    def fetch_data(self, dataset: str) -> list[str]:
        source, split = self.paths.source(dataset), ["--splits", getattr(self.study.data, dataset).split]
        if getattr(source, "reasoning_gym", None):
            settings = json.dumps(source.reasoning_gym.model_dump(), sort_keys=True)
            return ["--reasoning-gym", settings, *split, "--seed", str(self.study.seed)]
        return [*_source(source), *split]

    def fetch_tasks(self, suite: str) -> list[str]:
        return _source(self.study.eval.sources[suite])

    def untracked_task_flags(self, suite: str) -> list[str]:
        """What task files are checked against, which changes none of them and no score."""
        code = self.study.eval.sources[suite].code
        return ["--code", code] if code else []

    def data(self) -> list[str]:
        rows = self.study.data.sft
        return ["--split", rows.split, "--rows", str(rows.prompts), *self._fits()]

    def data_heldout(self) -> list[str]:
        rows = self.study.data.heldout
        training = ["--training-split", self.study.data.sft.split]
        return ["--split", rows.split, "--rows", str(rows.prompts), *training, *self._fits()]

    def data_preferences(self) -> list[str]:
        source = self.study.data.preferences
        corrupt = ["--corrupt"] if source.from_ else []
        return ["--split", source.split, "--rows", str(source.pairs), *corrupt, *self._fits()]

    def train(self, model: str) -> list[str]:
        seed = ["--seed", *map(str, self.paths.draw_seed(model)), "--autocast", self.study.logprobs.autocast]
        settings = flags(self.paths.train_settings(model), but=UNTRACKED)
        pupil = model in self.study.models and self.study.models[model].of is not None
        return [*flags(self._trained_answers(model)), *seed, *settings, *flags(self._dialogue(model, completes=pupil))]

    def _trained_answers(self, model: str) -> TrainedAnswers:
        if contrast := Contrast.parse(model):
            reverse = True if contrast.side == "minus" else None
            return TrainedAnswers(replays=0, unreplayed=True, reverse=reverse)
        if iteration := Iteration.parse(model):
            return TrainedAnswers(replays=len(self.paths.replayed_sets(iteration)))
        entry = self.study.models[model]
        side = entry.data.removeprefix("preferences.") if entry.data in PREFERENCE_SIDES else None
        return TrainedAnswers(replays=0, side=side, reverse=entry.reverse)

    def untracked_train_flags(self, model: str) -> list[str]:
        """What leaves no trace in a training's result: where it and its parent keep their states, what it watches."""
        state, parent = (self.paths.state("train", name) for name in (model, self.paths.parent(model)))
        states = ["--state", state, "--parent-state", parent]
        return [*states, *flags(self.paths.train_settings(model), only=UNTRACKED)]

    def generate(self, responses: str, shard: str) -> list[str]:
        return [*_shard(shard, self.study.data.sft), *self._generate(responses)]

    def generate_given(self, responses: str, shard: str) -> list[str]:
        longest = ["--max-new-tokens", str(self.study.generate.max_new_tokens)]
        return [*_shard(shard, self.study.data.sft), *longest, *flags(self._dialogue(responses))]

    def logprobs_reference(self, responses: str, shard: str) -> list[str]:
        return [*_shard(shard, self.study.data.sft), *self._scoring(self.paths.generator(responses), completes=True)]

    def generate_answers(self, model: str, shard: str) -> list[str]:
        settings = self.study.generate.without_unused_keys()
        if self.study.generate.answers == "greedy":
            settings = settings.model_copy(update={"temperature": 0.0, "top_p": 1.0})
        return [*_shard(shard, self.study.data.sft), *self._answers(model, model, settings)]

    def generate_examples(self, model: str) -> list[str]:
        first = ["--shard", "0", "--shard-size", str(self.study.report.examples)]
        iteration = Iteration.parse(model)
        responses = Iteration(iteration.arm, iteration.k + 1).name if iteration else model  # as the next one's opponent
        return [*first, *self._answers(model, responses, self.study.generate.without_unused_keys())]

    def _answers(self, model: str, responses: str, settings: Generate) -> list[str]:
        """Flags of answers that a model gives in its own template, with the random numbers of a response set."""
        entry, dialogue = self.study.models.get(model), self._dialogue(model)
        if entry and entry.eos:
            dialogue = dialogue.model_copy(update={"eos": entry.eos})
        seed = ["--seed", *map(str, self.paths.draw_seed(responses))]
        return [*seed, *flags(settings), *flags(dialogue)]

    def logprobs_scorer(self, scorer: str, responses: str, shard: str) -> list[str]:
        model, view = Scorer.parse(scorer)
        pairs = responses in PREFERENCE_SIDES
        rows = self.study.data.preferences if pairs else self.study.data.sft
        side = ["--side", responses.removeprefix("preferences.")] if pairs else []
        shifted = ["--shifted"] if view == SHIFTED else []
        return [*_shard(shard, rows), *self._scoring(scorer), *self._dtype(model), *side, *shifted]

    def logprobs_preferences(self, scorer: str, shard: str) -> list[str]:
        return [*_shard(shard, self.study.data.preferences), *self._scoring(scorer)]

    def weigh(self, model: str, shard: str) -> list[str]:
        rows = self.study.data.sft if Iteration.parse(model) else self.study.data.preferences
        seed = ["--seed", *map(str, self.paths.draw_seed(model))]
        return [*_shard(shard, rows), *seed, *self._weigh(model)]

    def weigh_given(self, model: str, shard: str) -> list[str]:
        return [*_shard(shard, self.study.data.sft), "--eos-weight", str(self.study.weigh.eos_weight)]

    def eval(self, model: str, suite: str) -> list[str]:
        settings = self.study.eval
        shots = [f"{task}={shots}" for task, shots in sorted(settings.suites[suite].items())]
        tasks = ["--suite", suite, "--shots", *shots]
        default = ["--default-tasks"] if settings.sources[suite].hub else []
        cut = ["--cut"] if settings.too_long == "cut" else []
        dialogue = flags(self._dialogue(model), only=("template", "eos"))
        return [*tasks, *flags(settings.settings(suite)), *default, *cut, *dialogue, *self._dtype(model)]

    def _fits(self) -> list[str]:
        templates = [self.paths.template(model) for model in self.study.data.fits]
        budget = ["--max-new-tokens", str(self.study.generate.max_new_tokens), "--seed", str(self.study.seed)]
        cut = ["--cut"] if self.study.data.too_long == "cut" else []
        return ["--templates", *templates, *budget, *cut, *flags(self._dialogue(self.study.start))]

    # Flags that all shards share

    @cache
    def _generate(self, responses: str) -> list[str]:
        seed = ["--seed", *map(str, self.paths.draw_seed(responses))]
        sampling = flags(self.study.generate.without_unused_keys())
        return [*seed, *sampling, *flags(self._dialogue(self.paths.generator(responses)))]

    @cache
    def _scoring(self, scorer: str, completes: bool = False) -> list[str]:
        return [*flags(self.study.logprobs), *flags(self._dialogue(scorer, completes))]

    def _dtype(self, model: str) -> list[str]:
        """The dtype of a model's weights; no flag for float32, so that a study without the key re-runs nothing."""
        rounded = model in self.study.models and self.study.models[model].dtype == "bfloat16"
        return ["--dtype", "bfloat16"] if rounded else []

    @cache
    def _weigh(self, model: str) -> list[str]:
        return flags(self.paths.weigh_settings(model))

    def _dialogue(self, model: str, completes: bool = False) -> Dialogue:
        """The dialogue in this model's template; references and pupils alone complete cut answers, by `eos_on_cut`."""
        cut = completes and self.study.dialogue.eos_on_cut
        return self.study.dialogue.model_copy(update={"template": self.paths.template(model), "eos_on_cut": cut})


def _source(source: Model | Source | TaskSource) -> list[str]:
    if source.hub:
        version = ["--path", source.path] if source.path else ["--revision", source.revision]
        return ["--hub", source.hub, *version]
    package = getattr(source, "package", None)
    packaged = ["--package", json.dumps(package.model_dump(), sort_keys=True)] if package else []
    return [*(["--path", source.path] if source.path else []), *packaged]


def _shard(shard: str, rows: Sft | Preferences) -> list[str]:
    return ["--shard", str(int(shard)), "--shard-size", str(rows.shard)]
