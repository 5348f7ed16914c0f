"""The examples that come with Consilium: specs and schemas to begin from."""

from __future__ import annotations

from pathlib import Path

from consilium.errors import InputError

SPEC = "experiment.yaml"
_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "examples", _PACKAGE.parent / "examples")


def example(*parts: str) -> Path:
    """A file of the examples: beside the package when installed, else of the repository.

    Raises:
        InputError: the installation lacks it.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.is_file():
            return path
    raise InputError(f"the example {'/'.join(parts)} is missing from this installation")


def presets() -> tuple[str, ...]:
    """Names of the experiments among the examples."""
    return tuple(sorted({path.parent.name for root in _ROOTS for path in root.glob(f"*/{SPEC}")}))


def spec_path(given: Path) -> Path:
    """A spec's file, or the preset of that name when there is no such file.

    Raises:
        InputError: there is neither.
    """
    if given.exists():
        return given
    if str(given) in presets():
        return example(str(given), SPEC)
    raise InputError(
        f"{given} is neither a file nor a preset; presets: {', '.join(presets()) or 'none'}"
    )
