"""A model as data: a tree of allow-listed layers, its parameters and its size, without torch.

A spec names layers with ``_target_`` as in the field's configuration tools; nothing here or in a
node imports what a spec names. Each allowed layer is a typed model with its own limits, and this
module knows the shapes of its parameters in the order in which ``torch.nn.Module.named_parameters``
lists them, so that coordinator and auditor, who have no torch, agree with the nodes.

A model may embed columns of codes and read number columns as series (``ledger.experiment.input_parts``); what comes of
them is joined, then the other inputs, and goes through its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ledger.experiment.input_parts import Embedding, Series, series_shapes
from ledger.experiment.layer_part import Activation, LayerPart, Width

MAX_PARAMETERS = 5_000_000
_MAX_PARTS = 64


class Linear(LayerPart):
    """``torch.nn.Linear``: weight [out, in], bias [out]."""

    target: Literal["torch.nn.Linear"] = Field("torch.nn.Linear", alias="_target_")
    in_features: Width
    out_features: Width
    bias: bool = True


class LayerNorm(LayerPart):
    """``torch.nn.LayerNorm`` over the last dimension: weight and bias [normalized_shape]."""

    target: Literal["torch.nn.LayerNorm"] = Field("torch.nn.LayerNorm", alias="_target_")
    normalized_shape: Width


Layer = Annotated[Linear | LayerNorm | Activation, Field(discriminator="target")]


def _is_empty(value: object) -> bool:
    return value == ()


Embeddings = Annotated[tuple[Embedding, ...], Field(max_length=_MAX_PARTS)]
SeveralSeries = Annotated[tuple[Series, ...], Field(max_length=_MAX_PARTS)]


class Sequential(LayerPart):
    """``torch.nn.Sequential``: layers one after another, over columns that are embedded or read as series first.

    Attributes:
        embeddings, series: absent from a canonical spec that has none.
    """

    target: Literal["torch.nn.Sequential"] = Field("torch.nn.Sequential", alias="_target_")
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=64)]
    embeddings: Embeddings = Field(default=(), exclude_if=_is_empty)
    series: SeveralSeries = Field(default=(), exclude_if=_is_empty)


class Network(Sequential):
    """A tree with embeddings or series, and which of a row's inputs each of its parts reads.

    Made by ``ledger.experiment.inputs.compose`` from a spec and a schema; never written or read.

    Attributes:
        embedded_at: the input of each embedding.
        series_at: the inputs of each series, by channel, then by step.
        rest: the inputs that go into ``layers`` as they are, behind the others.
    """

    embedded_at: tuple[int, ...]
    series_at: tuple[tuple[tuple[int, ...], ...], ...]
    rest: tuple[int, ...]


class LogisticRegression(LayerPart):
    """Preset: one linear layer from the encoded features to the task's outputs."""

    preset: Literal["logistic-regression", "linear-regression"]


class Mlp(LayerPart):
    """Preset: hidden layers with one activation, then a linear layer.

    Attributes:
        embeddings, series: absent from a canonical spec that has none.
    """

    preset: Literal["mlp"]
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (16,)
    activation: Literal["relu", "tanh", "gelu", "silu"] = "tanh"
    embeddings: Embeddings = Field(default=(), exclude_if=_is_empty)
    series: SeveralSeries = Field(default=(), exclude_if=_is_empty)


_ACTIVATIONS: dict[str, str] = {
    "relu": "torch.nn.ReLU",
    "tanh": "torch.nn.Tanh",
    "gelu": "torch.nn.GELU",
    "silu": "torch.nn.SiLU",
}


def expand(model: LogisticRegression | Mlp | Sequential, inputs: int, outputs: int) -> Sequential:
    """The full tree behind a preset, or the tree itself after its widths were checked.

    Embeddings and series are taken along as they are; ``ledger.experiment.inputs.compose`` checks them.

    Args:
        model: preset or tree.
        inputs: number of values that go into its layers.
        outputs: 1 for binary and regression tasks, the number of classes otherwise.

    Raises:
        ValueError: widths do not chain, or the model has too many parameters.
    """
    if isinstance(model, LogisticRegression):
        tree = Sequential(layers=(Linear(in_features=inputs, out_features=outputs),))
    elif isinstance(model, Mlp):
        layers: list[Linear | LayerNorm | Activation] = []
        width = inputs
        for hidden in model.hidden:
            layers.append(Linear(in_features=width, out_features=hidden))
            layers.append(Activation.model_validate({"_target_": _ACTIVATIONS[model.activation]}))
            width = hidden
        layers.append(Linear(in_features=width, out_features=outputs))
        tree = Sequential(layers=tuple(layers), embeddings=model.embeddings, series=model.series)
    else:
        tree = model
    _check_widths(tree, inputs, outputs)
    return tree


def parameter_shapes(tree: Sequential) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of all parameters, in torch's order, e.g. ``("0.weight", (1, 13))``."""
    return tuple(_shapes(tree))


def parameter_count(tree: Sequential) -> int:
    """Number of scalars in all parameters."""
    total = 0
    for _, shape in _shapes(tree):
        size = 1
        for extent in shape:
            size *= extent
        total += size
    return total


def _shapes(tree: Sequential) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix = "layers." if tree.embeddings or tree.series else ""
    for at, embedding in enumerate(tree.embeddings):
        yield f"embeddings.{at}.weight", (embedding.num_embeddings, embedding.embedding_dim)
    for at, series in enumerate(tree.series):
        for name, shape in series_shapes(series):
            yield f"series.{at}.{name}", shape
    for index, layer in enumerate(tree.layers):
        name = f"{prefix}{index}"
        if isinstance(layer, Linear):
            yield f"{name}.weight", (layer.out_features, layer.in_features)
            if layer.bias:
                yield f"{name}.bias", (layer.out_features,)
        elif isinstance(layer, LayerNorm):
            yield f"{name}.weight", (layer.normalized_shape,)
            yield f"{name}.bias", (layer.normalized_shape,)


def _check_widths(tree: Sequential, inputs: int, outputs: int) -> None:
    width = inputs
    source = "what goes into it has" if tree.embeddings or tree.series else "the features have"
    for index, layer in enumerate(tree.layers):
        if isinstance(layer, Linear):
            if layer.in_features != width:
                raise ValueError(
                    f"model layer {index} (Linear) takes {layer.in_features} inputs, but "
                    f"{source if index == 0 else 'the layer before gives'} {width}"
                )
            width = layer.out_features
        elif isinstance(layer, LayerNorm) and layer.normalized_shape != width:
            raise ValueError(
                f"model layer {index} (LayerNorm) normalises {layer.normalized_shape} values, "
                f"but gets {width}"
            )
    if width != outputs:
        raise ValueError(f"the model gives {width} outputs, but the task needs {outputs}")
    count = parameter_count(tree)
    if count == 0:
        raise ValueError("the model has no parameters to train")
    if count > MAX_PARAMETERS:
        raise ValueError(
            f"the model has {count:,} parameters, over the limit of {MAX_PARAMETERS:,}; "
            "use fewer or narrower layers"
        )
