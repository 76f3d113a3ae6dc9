"""Peak memory of a GPU in GB, by stage: weights and what stands beside them, from the models' configs alone."""

from wspin.config.losses import divergence_read
from wspin.config.stages import Generate, Train

from .sizes import Size

GB = 1e9
LOGITS = 3 * 4 * 1024  # bytes per entry of the vocabulary: rows of logits at a time, their softmax and its gradient
DIVERGENCE_LOGITS = 8 * 4 * 1024  # the same of a divergence, which has two models' logits and their terms
OPTIMIZER = {"rmsprop": 4, "adamw": 8}  # bytes per parameter
ROOTS = {"rmsprop": 4, "adamw": 0}  # the same, for the time of a step: foreach RMSprop holds the roots of all states


def keeps_reference(train: Train) -> bool:
    """Whether a frozen reference model stays loaded, and reads every batch too."""
    return divergence_read(train.loss, train.alpha) is not None


def training(size: Size, train: Train, precision: str, gpus: int) -> float:
    """Float32 weights, gradients, optimiser, the products' copies of weights; one micro-batch, or the step after it.

    Where the loss needs one, the frozen reference's weights and copies too, and the logits of both models.
    """
    copies = 2 * (precision == "bfloat16")
    states = size.parameters * (4 + 4 + OPTIMIZER[train.optimizer] + copies)
    kept = keeps_reference(train)
    reference = size.parameters * (4 + copies) * kept
    shared = gpus if train.parallel == "fsdp" else 1
    batch = train.token_budget * size.activations(precision, train.gradient_checkpointing)
    batch += size.config.vocab_size * (DIVERGENCE_LOGITS if kept else LOGITS)
    return ((states + reference) / shared + max(batch, size.parameters * ROOTS[train.optimizer] / shared)) / GB


def scoring(size: Size, precision: str, width: int, token_budget: int) -> float:
    """Weights of `width` bytes, the products' copies, the activations of a layer, a chunk of the head."""
    weights = size.parameters * (width + 2 * (precision == "bfloat16" and width == 4))
    layer = size.activations(precision) / size.config.num_hidden_layers
    return (weights + token_budget * layer + size.config.vocab_size * LOGITS) / GB


def cached(size: Size, precision: str, width: int, sequences: float) -> float:
    """Weights of `width` bytes with the products' copies, and a cache of so many tokens."""
    copies = 2 * (precision == "bfloat16" and width == 4)
    cache = sequences * size.cached_values * (2 if precision == "bfloat16" else 4)
    return (size.parameters * (width + copies) + cache) / GB


def generation(size: Size, settings: Generate, longest: int, gpu_gb: float) -> float:
    """Weights and the cache of a batch of the longest answers; with vLLM at least its share of the GPU."""
    if settings.engine == "vllm":
        width = 4 if settings.dtype == "float32" else 2
        return max(cached(size, settings.dtype, width, longest), settings.gpu_memory * gpu_gb)
    return cached(size, "float32", 4, settings.batch_size * longest)
