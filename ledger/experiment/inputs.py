"""Which inputs of a row each part of a model reads: from a spec's features and a dataset's public schema.

``ledger.experiment.schema.feature_names`` lists the inputs; a column that a model embeds is one of them, the number of
its code. Here embeddings and series find theirs, and what is left goes into the layers as it is.
"""

from __future__ import annotations

from ledger.experiment.input_parts import Embedding, Series, series_width
from ledger.experiment.layer_part import MAX_WIDTH
from ledger.experiment.network_spec import (
    LogisticRegression,
    Mlp,
    Network,
    Sequential,
    expand,
)
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema, feature_names

Model = LogisticRegression | Mlp | Sequential


def embedded(model: Model) -> frozenset[str]:
    """The columns that a model embeds: each is one input, the number of its code."""
    if isinstance(model, LogisticRegression):
        return frozenset()
    return frozenset(embedding.column for embedding in model.embeddings)


def compose(model: Model, schema: Schema, features: tuple[str, ...], outputs: int) -> Sequential:
    """The full tree of a model on a schema, with the inputs that its parts read.

    Args:
        model: preset or tree.
        schema: of a dataset; every feature is a number or category column of it.
        features: column names, in the spec's order.
        outputs: of the model.

    Raises:
        ValueError: a part names columns that are not there or do not fit it, or widths do not chain.
    """
    names = feature_names(schema, features, embedded(model))
    if isinstance(model, LogisticRegression) or not (model.embeddings or model.series):
        return expand(model, len(names), outputs)
    at = {name: place for place, name in enumerate(names)}
    tables = tuple(_embedded_at(one, schema, features, at) for one in model.embeddings)
    lines = tuple(
        _series_at(place, one, schema, features, at) for place, one in enumerate(model.series)
    )
    taken = [*tables, *(place for series in lines for channel in series for place in channel)]
    if len(set(taken)) < len(taken):
        twice = next(name for name in names if taken.count(at[name]) > 1)
        raise ValueError(f"column {twice} is read by two of its embeddings and series")
    rest = tuple(sorted(set(range(len(names))) - set(taken)))
    width = sum(one.embedding_dim for one in model.embeddings) + len(rest)
    for place, one in enumerate(model.series):
        try:
            width += series_width(one)
        except ValueError as error:
            raise ValueError(f"series {place}: {error}") from None
    if width > MAX_WIDTH:
        raise ValueError(f"its layers would get {width:,} values, over the limit of {MAX_WIDTH:,}")
    tree = expand(model, width, outputs)
    return Network(
        layers=tree.layers,
        embeddings=tree.embeddings,
        series=tree.series,
        embedded_at=tables,
        series_at=lines,
        rest=rest,
    )


def _embedded_at(
    embedding: Embedding, schema: Schema, features: tuple[str, ...], at: dict[str, int]
) -> int:
    column = schema.column(embedding.column)
    if embedding.column not in features or not isinstance(column, CategoryColumn):
        raise ValueError(
            f"embedding of {embedding.column}: it is no category column among the features"
        )
    lines = len(column.values) + 1
    if embedding.num_embeddings != lines:
        raise ValueError(
            f"embedding of {embedding.column}: num_embeddings is {embedding.num_embeddings}, but the column "
            f"has {len(column.values)} codes, and one line is for a missing one: {lines}"
        )
    return at[embedding.column]


def _series_at(
    place: int, series: Series, schema: Schema, features: tuple[str, ...], at: dict[str, int]
) -> tuple[tuple[int, ...], ...]:
    """The inputs of each channel; columns of one channel follow one another in the features."""
    lines = []
    for name in series.channels:
        if name not in features:
            raise ValueError(f"series {place}: channel {name} is not among the features")
        first = features.index(name)
        columns = features[first : first + series.steps]
        if len(columns) < series.steps:
            raise ValueError(
                f"series {place}: channel {name} has {series.steps} steps, and the features end after "
                f"{len(columns)} of them"
            )
        wrong = [c for c in columns if not isinstance(schema.column(c), NumberColumn)]
        if wrong:
            raise ValueError(f"series {place}: {wrong[0]} in channel {name} is no number column")
        lines.append(tuple(at[column] for column in columns))
    return tuple(lines)
