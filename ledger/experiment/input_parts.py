"""What a model does to some of its columns before they are joined: tables of codes, and series of numbers.

An ``Embedding`` takes one column of codes and gives each declared code a line of its table, and the first line
to everything else. A ``Series`` takes number columns that are the same measurement at equal steps, several
measurements as channels, through convolutions and recurrent layers, and pools what comes out into numbers.

Layers and their fields are PyTorch's. Every size stands in the spec, as in PyTorch, and is checked here against
what goes in, so that a steward reads what a hospital will compute; ``MOST_PLACE_VALUES`` bounds the memory and
the work that one row of a hospital may take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ledger.experiment.layer_part import MAX_WIDTH, Activation, LayerPart
from ledger.experiment.schema import MAX_CATEGORIES, ColumnName

MOST_PLACE_VALUES = 2**17
"""Values that one row may have between two layers of a series, a kernel's patches counted in full."""
_Channels = Annotated[int, Field(ge=1, le=1024)]
_Steps = Annotated[int, Field(ge=2, le=1024)]

Shape = tuple[int, ...]


class Embedding(LayerPart):
    """``torch.nn.Embedding`` of a column of codes: weight [codes + 1, dim].

    Attributes:
        column: a category column among the features; it has this one input, and no 0/1 ones.
        num_embeddings: one more than the column has declared codes: line 0 is for a missing code.
    """

    target: Literal["torch.nn.Embedding"] = Field("torch.nn.Embedding", alias="_target_")
    column: ColumnName
    num_embeddings: Annotated[int, Field(ge=3, le=MAX_CATEGORIES + 1)]
    embedding_dim: Annotated[int, Field(ge=1, le=256)]


class Conv1d(LayerPart):
    """``torch.nn.Conv1d`` over the steps: weight [out, in, kernel], bias [out]."""

    target: Literal["torch.nn.Conv1d"] = Field("torch.nn.Conv1d", alias="_target_")
    in_channels: _Channels
    out_channels: _Channels
    kernel_size: Annotated[int, Field(ge=1, le=1024)]
    stride: Annotated[int, Field(ge=1, le=1024)] = 1
    padding: Annotated[int, Field(ge=0, le=512)] = 0
    bias: bool = True


class GroupNorm(LayerPart):
    """``torch.nn.GroupNorm`` over groups of channels and all steps: weight and bias [channels]."""

    target: Literal["torch.nn.GroupNorm"] = Field("torch.nn.GroupNorm", alias="_target_")
    num_groups: _Channels
    num_channels: _Channels


class GRU(LayerPart):
    """``torch.nn.GRU`` with one layer, over the steps; gives its state after each."""

    target: Literal["torch.nn.GRU"] = Field("torch.nn.GRU", alias="_target_")
    input_size: _Channels
    hidden_size: _Channels


SeriesLayer = Annotated[Conv1d | GroupNorm | GRU | Activation, Field(discriminator="target")]


class Series(LayerPart):
    """Number columns at equal steps, one line of them for each channel, through layers, then pooled.

    Attributes:
        channels: the first column of each channel. Its other columns are the features that follow it.
        steps: columns of each channel.
        layers: one after another, over [channels, steps].
        pool: what of [channels, steps] goes on: all of it, the mean over the steps, or the last step.
    """

    channels: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=64)]
    steps: _Steps
    layers: Annotated[tuple[SeriesLayer, ...], Field(min_length=1, max_length=16)]
    pool: Literal["flatten", "mean", "last"] = "flatten"


def series_shapes(series: Series) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of a series' parameters, in torch's order."""
    for at, layer in enumerate(series.layers):
        if isinstance(layer, Conv1d):
            yield f"{at}.weight", (layer.out_channels, layer.in_channels, layer.kernel_size)
            if layer.bias:
                yield f"{at}.bias", (layer.out_channels,)
        elif isinstance(layer, GroupNorm):
            yield f"{at}.weight", (layer.num_channels,)
            yield f"{at}.bias", (layer.num_channels,)
        elif isinstance(layer, GRU):
            gates, size = 3 * layer.hidden_size, layer.hidden_size
            yield f"{at}.weight_ih_l0", (gates, layer.input_size)
            yield f"{at}.weight_hh_l0", (gates, size)
            yield f"{at}.bias_ih_l0", (gates,)
            yield f"{at}.bias_hh_l0", (gates,)


def series_width(series: Series) -> int:
    """Number of values that a series gives.

    Raises:
        ValueError: its layers do not chain, or a row would take too much.
    """
    channels, steps = len(series.channels), series.steps
    for at, layer in enumerate(series.layers):
        channels, steps = _after(f"layer {at} ({type(layer).__name__})", layer, channels, steps)
    width = channels * (steps if series.pool == "flatten" else 1)
    if width > MAX_WIDTH:
        raise ValueError(f"it gives {width:,} values, over the limit of {MAX_WIDTH:,}")
    return width


def fan_in(layer: Embedding | SeriesLayer) -> int:
    """What the first weights of a layer are bounded by: 1 / sqrt of it. 0 for a layer without products."""
    if isinstance(layer, Embedding):
        return layer.embedding_dim
    if isinstance(layer, Conv1d):
        return layer.in_channels * layer.kernel_size
    return layer.hidden_size if isinstance(layer, GRU) else 0


def _after(where: str, layer: SeriesLayer, channels: int, steps: int) -> tuple[int, int]:
    """Channels and steps behind a layer."""
    taken = channels
    if isinstance(layer, Conv1d):
        taken = layer.in_channels
    elif isinstance(layer, GroupNorm):
        taken = layer.num_channels
    elif isinstance(layer, GRU):
        taken = layer.input_size
    if taken != channels:
        raise ValueError(f"{where} takes {taken} channels, but gets {channels}")
    values = channels * steps
    if isinstance(layer, Conv1d):
        padded = steps + 2 * layer.padding
        if layer.kernel_size > padded:
            raise ValueError(f"{where} has a kernel of {layer.kernel_size} over {padded} steps")
        channels, steps = layer.out_channels, (padded - layer.kernel_size) // layer.stride + 1
        values = steps * layer.in_channels * layer.kernel_size
    elif isinstance(layer, GroupNorm) and channels % layer.num_groups:
        raise ValueError(
            f"{where} cannot divide {channels} channels into {layer.num_groups} groups"
        )
    elif isinstance(layer, GRU):
        channels = layer.hidden_size
        values = 3 * layer.hidden_size * steps
    most = max(values, channels * steps)
    if most > MOST_PLACE_VALUES:
        raise ValueError(
            f"{where} takes {most:,} values of a row, over the limit of {MOST_PLACE_VALUES:,}"
        )
    return channels, steps
