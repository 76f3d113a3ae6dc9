"""The precision of matrix products, and weights that are cast to it once instead of in every forward pass."""

from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.pytorch_utils import Conv1D


def cast_linear_layers(model: Any, dtype: torch.dtype) -> None:
    """Give the linear layers of a model that is never trained again the weights that autocast would give them.

    Under autocast the model computes the same bits as before, with half the memory. Embeddings and norms keep their
    type; a head that shares the embedding's weight gets its own.
    """
    casts = WeakTensorKeyDictionary()  # of shared weights; others are freed one by one
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D):  # no subclasses: they may use their weights in another way
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight not in casts:
                    casts[weight] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
                setattr(module, name, casts[weight])
