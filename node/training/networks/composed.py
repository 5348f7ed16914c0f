"""Networks that embed codes and read series: torch's own modules, wired as a spec's ``Network`` says.

Promise: parameters are those that ``ledger.experiment.network_spec.parameter_shapes`` lists, in that order, so a
released model's tensors load into ``torch.nn`` layers of the same names. Every row is treated alone.

Not promised: the same bits for a row in every place of a batch; torch's convolutions and products do not promise that.
``node.training.sums.alone`` hands rows in one by one where it matters, and the fast engine looks
(``bookkeeping.clipped_sum_of``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ledger.experiment.input_parts import GRU, Conv1d, GroupNorm, Series
from ledger.experiment.layer_part import Activation
from ledger.experiment.network_spec import LayerNorm, Linear, Network
from node.training.layers.columns import ColumnLinear
from node.training.networks.activations import ACTIVATIONS

Layer = Linear | LayerNorm | Activation | Conv1d | GroupNorm | GRU


class ComposedNetwork(nn.Module):
    """From rows of encoded inputs, float32 [n, d], to outputs [n, k]."""

    def __init__(self, tree: Network) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Embedding(one.num_embeddings, one.embedding_dim) for one in tree.embeddings
        )
        self.series = nn.ModuleList(SeriesNetwork(one) for one in tree.series)
        self.layers = nn.Sequential(*(_layer(one) for one in tree.layers))
        last = [one.num_embeddings - 1 for one in tree.embeddings]
        self._codes = list(zip(tree.embedded_at, last, strict=True))
        self._lines = [torch.tensor(lines) for lines in tree.series_at]
        self._rest = torch.tensor(tree.rest, dtype=torch.int64)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Apply to [n, d]; gives [n, k]."""
        scores: torch.Tensor = self.layers(torch.cat([*self._parts(rows)], dim=1))
        return scores

    def _parts(self, rows: torch.Tensor) -> Iterator[torch.Tensor]:
        for (place, last), table in zip(self._codes, self.embeddings, strict=True):
            # Codes come from ``encode.features`` and are lines of the table; a made-up row may hold any number.
            lines = rows[:, place : place + 1].long().clamp(0, last)
            yield table(lines).flatten(1)
        for lines, series in zip(self._lines, self.series, strict=True):
            yield series(rows[:, lines])
        if len(self._rest):
            yield rows[:, self._rest]


class SeriesNetwork(nn.Sequential):
    """Layers over [n, channels, steps], then a pool; gives [n, width]."""

    def __init__(self, series: Series) -> None:
        super().__init__(*(_layer(one) for one in series.layers))
        self._recurrent = [isinstance(one, GRU) for one in series.layers]
        self._pool = series.pool

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Apply."""
        for layer, recurrent in zip(self, self._recurrent, strict=True):
            if recurrent:  # which has steps before channels, and gives its last state as well
                values = layer(values.transpose(1, 2).contiguous())[0].transpose(1, 2)
            else:
                values = layer(values)
        if self._pool == "flatten":
            return values.flatten(1)
        return values.mean(dim=2) if self._pool == "mean" else values[:, :, -1]


def _layer(layer: Layer) -> nn.Module:
    if isinstance(layer, Linear):
        return ColumnLinear(layer.in_features, layer.out_features, bias=layer.bias)
    if isinstance(layer, LayerNorm):
        return nn.LayerNorm(layer.normalized_shape)
    if isinstance(layer, Conv1d):
        return nn.Conv1d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            bias=layer.bias,
        )
    if isinstance(layer, GroupNorm):
        return nn.GroupNorm(layer.num_groups, layer.num_channels)
    if isinstance(layer, GRU):
        return nn.GRU(layer.input_size, layer.hidden_size, batch_first=True)
    return ACTIVATIONS[layer.target]()
