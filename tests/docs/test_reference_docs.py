from __future__ import annotations

import inspect
from types import ModuleType

import pytest
from pydantic import BaseModel

from ledger.experiment import input_parts, layer_part, network_spec, privacy_spec, schema, spec
from tests.docs import pages
from tests.docs.fields import with_defaults


def models(*modules: ModuleType, without: set[str]) -> dict[str, type[BaseModel]]:
    return {
        name: model
        for module in modules
        for name, model in vars(module).items()
        if inspect.isclass(model)
        and issubclass(model, BaseModel)
        and model.__module__ == module.__name__
        and name not in without
    }


REFERENCES = {
    ("docs/researcher.md", "Spec reference"): models(
        spec,
        privacy_spec,
        network_spec,
        input_parts,
        layer_part,
        without={"LayerPart", "Network"},
    ),
    ("docs/dataset-schema.md", "Reference"): models(schema, without={"SchemaPart"}),
}


@pytest.mark.parametrize(("page", "heading"), REFERENCES)
def test_every_field_is_documented_with_type_and_default_and_no_other(
    page: str, heading: str
) -> None:
    known = REFERENCES[(page, heading)]
    text = pages.section(page, heading)
    assert {line[4:] for line in text.splitlines() if line.startswith("### ")} == set(known)
    for name, model in known.items():
        table = pages.rows(pages.section(page, name))
        assert [tuple(row[:3]) for row in table] == with_defaults(model), name
        assert all(row[3] for row in table), f"{name} has a field without a meaning"


def test_the_page_states_the_limit_of_a_model_s_size() -> None:
    page = pages.read("docs/researcher.md")
    assert f"{network_spec.MAX_PARAMETERS:,} parameters" in page
    assert f"{input_parts.MOST_PLACE_VALUES:,} values" in page
