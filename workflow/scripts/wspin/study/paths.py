"""The inputs of the rules, and the settings that their programs take."""

import glob

from wspin.config.scorers import Scorer
from wspin.config.stages import Train, at_iteration
from wspin.iteration import Contrast, Iteration, StartAnswers

from .files import GOLD, PREFERENCE_SIDES, StudyFiles


class StudyPaths(StudyFiles):
    """Paths of one study by the rules that read them."""

    # Inputs of the rules, by the names of their wildcards

    def local_split(self, dataset: str) -> tuple[str | None, str]:
        """(folder, pattern) of a data set's split from a local folder; other splits beside it trigger nothing."""
        return self.source(dataset).path, f"{glob.escape(getattr(self.study.data, dataset).split)}.*"

    def scratch_text(self, model: str) -> list[str]:
        """The raw text that trains a scratch model's tokenizer; nothing for other models."""
        scratch = self.study.models[model].scratch
        return [self.fetched(scratch.text)] if scratch else []

    def scratch_text_manifest(self, model: str) -> list[str]:
        scratch = self.study.models[model].scratch
        return [self.fetched_manifest(scratch.text)] if scratch else []

    def parent_model(self, model: str) -> str:
        return self.model(self.parent(model))

    def parent_manifest(self, model: str) -> str:
        return self.manifest(self.parent(model))

    def training_rows(self, model: str) -> str:
        return self.data(self._training_data(model))

    def training_digest(self, model: str) -> str:
        return self.rows_digest(self._training_data(model))

    def _training_data(self, model: str) -> str:
        """The data set with a training's prompts."""
        entry = self.study.models.get(model)
        return "preferences" if entry and entry.data.startswith("preferences") else "prompts"

    def training_reference(self, model: str) -> list[str]:
        """Shards of the start model's log-probabilities of the pairs; sft needs none."""
        contrast = Contrast.parse(model)
        if iteration := contrast.iteration if contrast else Iteration.parse(model):
            return self.files(self.reference_folder(iteration), "reference")
        entry = self.study.models[model]
        return self.files(entry.from_, "preferences", "pairs") if entry.data == "preferences" else []

    def training_weights(self, model: str) -> list[str]:
        """Shards of the weights of all pairs of a training: for an iteration of its own answers, then the replayed."""
        if model in self.study.weighted_models():
            return self.files(model, "weights", "pairs")
        iteration = Iteration.parse(model)
        if not iteration or not self.study.weighted(iteration.arm):
            return []
        folders = [self.weights_folder(replayed) for replayed in self.training_window(iteration)]
        return [path for folder in folders for path in self.files(folder, "weights")]

    def training_answers(self, model: str) -> list[str]:
        """Shards of the answers of the model that this one is distilled from."""
        entry = self.study.models.get(model)
        return self.files(entry.of, "answers") if entry and entry.of else []

    def generator_model(self, responses: str) -> str:
        return self.model(self.generator(responses))

    def generator_manifest(self, responses: str) -> str:
        return self.manifest(self.generator(responses))

    def scored_answers(self, responses: str, shard: str) -> str:
        return self.file(self.scored_set(responses), "generations", shard)

    def replayed_answers(self, responses: str, shard: str) -> list[str]:
        replayed = self.replayed_sets(Iteration.parse(responses))
        return [self.file(folder, "generations", shard) for folder in replayed]

    def scorer_model(self, scorer: str) -> str:
        return self.model(Scorer.parse(scorer).model)

    def scorer_manifest(self, scorer: str) -> str:
        return self.manifest(Scorer.parse(scorer).model)

    def scorer_rows(self, responses: str) -> str:
        return self.data(self._scored_data(responses))

    def scorer_digest(self, responses: str) -> str:
        return self.rows_digest(self._scored_data(responses))

    def _scored_data(self, responses: str) -> str:
        """The data set with the prompts of a response set, or of a side of the preference pairs."""
        return "preferences" if responses in PREFERENCE_SIDES else "prompts"

    def scorer_answers(self, responses: str, shard: str) -> list[str]:
        """What a scorer scores beside the rows; nothing for real answers, which lie with them."""
        real = responses in (GOLD, *PREFERENCE_SIDES)
        return [] if real else [self.file(responses, "generations", shard)]

    def weighted_answers(self, model: str, shard: str) -> list[str]:
        """The rejected answers of an iteration's pairs; those of preference pairs lie with the rows."""
        iteration = Iteration.parse(model)
        return [self.file(self.response_set(iteration), "generations", shard)] if iteration else []

    def weighted_reference(self, model: str, shard: str) -> str:
        """The student's log-probabilities of the pairs, which training uses as reference."""
        if iteration := Iteration.parse(model):
            return self.file(self.reference_folder(iteration), "reference", shard)
        return self.file(self.parent(model), "preferences", shard)

    def positive_logprobs(self, model: str, shard: str) -> list[str]:
        """The positive scorer's log-probabilities of the chosen and the rejected answers, if it has files."""
        return self._logprobs(self.scorer_pair(model).positive, model, shard)

    def negative_logprobs(self, model: str, shard: str) -> list[str]:
        return self._logprobs(self.scorer_pair(model).negative, model, shard)

    def _logprobs(self, scorer: str | None, model: str, shard: str) -> list[str]:
        sides = self.scored_sides(model) if scorer else ()
        return [self.file(f"logprobs/{scorer}", side, shard) for side in sides]

    def scored_sides(self, model: str) -> tuple[str, str]:
        """What the scorers of a weighted iteration or registry model score: its chosen and its rejected answers."""
        iteration = Iteration.parse(model)
        return (GOLD, self.response_set(iteration)) if iteration else PREFERENCE_SIDES

    def weight_sums(self, model: str) -> list[str]:
        """The sums of all shards' weights, where these are normalised over the data set."""
        rows = "prompts" if Iteration.parse(model) else "pairs"
        names = self.shards(rows) if self.weigh_settings(model).normalise_over else []
        return [f"{self.results}/{model}/weight_sums/{shard}.json" for shard in names]

    def weight_sources(self, model: str, shard: str) -> dict[str, list[str]]:
        """The weights of an iteration's shard and the files that they were computed from, by the names of flags."""
        iteration = Iteration.parse(model)
        given = iteration.k == 0 and iteration.arm in self.study.given_weights()
        return {
            "weights": [self.file(model, "weights", shard)],
            "generations": self.weighted_answers(model, shard),
            "reference": [self.weighted_reference(model, shard)],
            "positive-logprobs": [] if given else self.positive_logprobs(model, shard),
            "negative-logprobs": [] if given else self.negative_logprobs(model, shard),
            "sums": [] if given else self.weight_sums(model),
        }

    def token_page_inputs(self, arm: str, k: str) -> list[str]:
        """The first shard of what a page of token weights shows."""
        sources = self.weight_sources(Iteration(arm, int(k)).name, self.shards()[0])
        return [path for files in sources.values() for path in files]

    def heldout(self, suite: str) -> list[str]:
        return [self.data("heldout")] if self.study.eval.sources[suite].heldout else []

    def heldout_digest(self, suite: str) -> list[str]:
        return [self.rows_digest("heldout")] if self.study.eval.sources[suite].heldout else []

    # Settings of the programs

    def train_settings(self, model: str) -> Train:
        """The settings of one training, per-iteration values resolved; triplets only where answers are replayed."""
        iteration = Iteration.parse(model)
        if not iteration:
            contrast = Contrast.parse(model)
            settings = self.study.loss_train("dpo") if contrast else self.study.model_train(model)
            return settings.without_unused_keys().model_copy(update={"triplets": False})
        settings = at_iteration(self.study.arm_train(iteration.arm), iteration.k)
        return settings if self.replayed_sets(iteration) else settings.model_copy(update={"triplets": False})

    def draw_seed(self, responses: str) -> tuple[int, int]:
        """(seed, iteration) from which the random numbers of a response set derive; never from an arm's name."""
        contrast = Contrast.parse(responses)
        if iteration := contrast.iteration if contrast else Iteration.parse(responses):
            return self.seed(iteration.arm), iteration.k
        answers = StartAnswers.parse(responses)
        return answers.seed if answers else self.seed(responses), 0

    def template(self, scorer: str) -> str:
        """The template in which a model or a view of one sees a prompt; trained models keep the study's."""
        model, view = Scorer.parse(scorer)
        entry = self.study.models.get(model)
        own = entry and (entry.views.get(view) or entry.template)
        return own or self.study.dialogue.template
