"""What all layers of a model tree have in common, and the functions that every part of one may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_WIDTH = 65_536
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


class LayerPart(BaseModel):
    """A frozen part of a model tree; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True
    )


class Activation(LayerPart):
    """A parameterless function, elementwise."""

    target: Literal[
        "torch.nn.ReLU",
        "torch.nn.Tanh",
        "torch.nn.Sigmoid",
        "torch.nn.GELU",
        "torch.nn.SiLU",
        "torch.nn.ELU",
        "torch.nn.Softplus",
    ] = Field(alias="_target_")
