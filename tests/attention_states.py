"""Random states of a packed row, and what its buckets make of them."""

from types import SimpleNamespace

import torch

from wspin.engine import attention


def states_of(layout, heads=(4, 2, 2), width=8):
    torch.manual_seed(0)
    size = len(layout.positions)
    return [torch.randn(1, n, size, width, dtype=torch.float64, requires_grad=True) for n in heads]


def bucketed(layout, states, window=None, scaling=None, module=None):
    more = {"scaling": scaling, "layout": layout, "sliding_window": window}
    return attention._bucketed_attention(module or SimpleNamespace(), *states, None, **more)[0]
