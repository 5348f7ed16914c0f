"""Documents as people write them: a YAML or JSON file becomes a typed, frozen document.

JSON is read as the YAML that it nearly is. Refused beyond what the document's own type refuses: a key
that is there twice (YAML would take the last one), anchors and aliases (a small file can unfold to a
huge one), and files over 1 MiB.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from consilium.errors import InputError
from ledger.formats.documents import MAX_DOCUMENT, explain

M = TypeVar("M", bound=BaseModel)


def read_written(path: Path, model: type[M]) -> M:
    """Read a document that a person wrote.

    Raises:
        InputError: it cannot be read or is not one; names the file and the place in it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse_written(data, model, str(path))


def parse_written(data: bytes, model: type[M], where: str) -> M:
    """Parse the bytes of such a file; ``where`` names it in messages."""
    if len(data) > MAX_DOCUMENT:
        raise InputError(f"{where}: it is longer than {MAX_DOCUMENT} bytes")
    try:
        plain = yaml.load(data, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        place = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{where}{place}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: it is neither YAML nor JSON ({reason})") from None
    if not isinstance(plain, dict):
        raise InputError(f"{where}: it must be a mapping of fields, such as `consilium: 1`")
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from None


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without anchors and without double keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not accepted", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)
