"""The size of a model and the activations of its passes, from its config alone: without weights or memory.

Modules are built on torch's meta device; what a forward pass keeps for the backward pass is counted on fake tensors.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from wspin.config.sources import Model
from wspin.engine.flops import Cost
from wspin.errors import StudyError, first_line
from wspin.study.paths import StudyPaths

SHIPPED = Path("config/architectures")  # configs of the study's models, until they are fetched


FEW, MANY = 61, 127  # tokens of the passes that are counted: no width of a model is one of them


@dataclass(frozen=True, eq=False)  # hashed by identity, as a config has no hash
class Size:
    """The size of a causal model of transformers, from its config."""

    config: Any

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)
        except Exception as error:  # of the model's class, for numbers that contradict each other
            found = f"found {type(error).__name__}: {first_line(error)}; copy the file again"
            place = f"{self.config.name_or_path}/config.json"
            raise StudyError(f"{place}: expected a model that can be built, {found}") from error

    @cached_property
    def cost(self) -> Cost:
        """FLOPs of its passes."""
        return Cost.of(self._model)

    @cached_property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self._model.parameters())

    @cached_property
    def embedding(self) -> int:
        """Parameters of the table that is looked up: no work, no memory traffic."""
        tied = self._model.get_output_embeddings().weight is self._model.get_input_embeddings().weight
        return 0 if tied else self._model.get_input_embeddings().weight.numel()

    @property
    def context(self) -> int:
        return self.config.max_position_embeddings

    @property
    def cached_values(self) -> int:
        """Keys and values that one token leaves in the cache, in numbers."""
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return 2 * self.config.num_hidden_layers * heads * width

    def activations(self, precision: str, checkpointing: bool = False) -> float:
        """Bytes per token that a training pass keeps for its backward pass; the head's logits apart.

        With checkpointing, the residual stream is kept for every layer, and one layer at a time is recomputed.
        """
        layers, layer = self.config.num_hidden_layers, self._layer_activations(precision)
        return layers * 4 * self.config.hidden_size + layer if checkpointing else layers * layer

    @cache  # counting takes a second
    def _layer_activations(self, precision: str) -> float:
        """Bytes per token and layer, from the difference between passes with one more layer and with more tokens."""
        kept = {(n, tokens): _kept(self.config, n, tokens, precision) for n in (1, 2) for tokens in (FEW, MANY)}
        return (kept[2, MANY] - kept[2, FEW] - kept[1, MANY] + kept[1, FEW]) / (MANY - FEW)


def _kept(config: Any, layers: int, tokens: int, precision: str) -> int:
    """Bytes that a forward pass keeps for the backward pass, without weights and their copies."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    small = deepcopy(config)
    small.num_hidden_layers, small.vocab_size = layers, 8
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:layers]
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # A weight has no dimension of that size, and a mask, which the study's attention does without, has two.
        if tensor.shape.count(tokens) == 1:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, trust_remote_code=False).base_model
        ids = torch.zeros(1, tokens, dtype=torch.long)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            _states = model(ids, use_cache=False).last_hidden_state  # alive while what it keeps is counted
    return sum(storage.nbytes() for storage in kept.values())


def known_sizes(paths: StudyPaths) -> dict[str, Size]:
    """The sizes of the fetched models whose configs exist: fetched, at a local path, from scratch, or shipped.

    Raises `StudyError` if no model can be built of one.
    """
    configs = {name: _config(paths, name, paths.study.models[name]) for name in paths.fetched_models}
    sizes = {name: Size(config) for name, config in configs.items() if config is not None}
    for size in sizes.values():
        _ = size.parameters  # builds the model, whose class checks the numbers
    return sizes


def _config(paths: StudyPaths, name: str, model: Model) -> Any:
    from wspin.models import checks
    from wspin.models.scratch import scratch_config

    if model.scratch:
        return scratch_config(model.scratch)
    for folder in (paths.model(name), model.path, model.hub and SHIPPED / model.hub):
        if folder and (Path(folder) / "config.json").exists():
            return checks.read_config(folder)
    return None
