"""Matrix products of a tape, in the precisions and by the libraries that may make them.

OpenBLAS (numpy's) multiplies fastest where the processor has AVX-512, and there rounds a row alike wherever it
stands; by AVX2 it does not, in float32. MKL (torch's) does on most machines. ``DenseSum`` takes the first that passes
its check.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

Multiplication = Callable[[], object]
"""Makes one product of tensors that stand already, into one that stands already."""


class Product(NamedTuple):
    """A way to multiply.

    Attributes:
        dtype: of what is multiplied, and of the result.
        bind: from a [m, k], b [k, n] and where to write [m, n] to what writes their product there.
    """

    dtype: torch.dtype
    bind: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Multiplication]


def by_numpy(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Multiplication:
    """Bind numpy's product."""
    if a.shape[1] == 1:  # adds nothing, and numpy takes long for it
        return partial(np.multiply, a.numpy(), b.numpy(), out=out.numpy())
    return partial(np.matmul, a.numpy(), b.numpy(), out=out.numpy())


def by_torch(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Multiplication:
    """Bind torch's product."""
    return partial(torch.mm, a, b, out=out)


PRODUCTS = (
    Product(torch.float32, by_numpy),
    Product(torch.float32, by_torch),
    Product(torch.float64, by_numpy),
)
"""The faster before the slower."""
