"""An experiment's models as a sequence of vectors of which one is in memory at a time.

The coordinator that averages the late ones, and the auditor who averages them again, read them so: neither
holds more of them than the arithmetic needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from ledger.entries.operations.values import BlobRef
from ledger.experiment.tensors import Float64Vector, Shapes, unpack_model


class RoundModels(Sequence[Float64Vector]):
    """The rounds' models, each read when it is asked for.

    Args:
        read: hands out a blob's bytes; what it raises goes to whoever asks for a model.
        refs: the models, in the order of their rounds.
        shapes: of each of them.

    Indexing raises:
        MalformedInput: the blob is no model of these shapes.
    """

    def __init__(
        self, read: Callable[[BlobRef], bytes], refs: Sequence[BlobRef], shapes: Shapes
    ) -> None:
        self._read, self._refs, self._shapes = read, refs, shapes

    def __len__(self) -> int:
        return len(self._refs)

    @overload
    def __getitem__(self, index: int) -> Float64Vector: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Float64Vector]: ...
    def __getitem__(self, index: int | slice) -> Float64Vector | Sequence[Float64Vector]:
        if isinstance(index, slice):
            return RoundModels(self._read, self._refs[index], self._shapes)
        return unpack_model(self._read(self._refs[index]), self._shapes)
