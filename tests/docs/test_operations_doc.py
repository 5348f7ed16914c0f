from __future__ import annotations

import importlib
import inspect
import pkgutil

from ledger.entries import operations
from ledger.entries.operations.values import Value
from ledger.entries.operations.vocabulary import OPERATIONS
from ledger.rules.fold import PERMISSIONS, RULES
from ledger.rules.verdict import EXPLANATIONS
from tests.docs import pages
from tests.docs.fields import described

PAGE = "docs/operations.md"


def vocabulary() -> dict[str, type[Value]]:
    return dict(OPERATIONS)


def test_the_vocabulary_and_who_may_say_what_is_that_of_the_fold() -> None:
    table = {row[0]: row[1:3] for row in pages.rows(pages.section(PAGE, "The vocabulary"))}
    expected = {
        name: [
            ", ".join(sorted(RULES[name][1])) if name in RULES else "coordinator",
            "P" if name in PERMISSIONS else "",
        ]
        for name in vocabulary()
    }
    assert table == expected


def test_every_field_of_every_operation_is_documented_with_its_type_and_no_other() -> None:
    for name, model in vocabulary().items():
        fields = [field for field in described(model) if field[0] != "type"]
        table = pages.rows(pages.section(PAGE, name))
        assert sorted((row[0], row[1]) for row in table) == sorted(fields), name


def test_every_part_of_an_operation_is_documented_with_its_types_and_no_other() -> None:
    parts = {
        name: model
        for module in pkgutil.iter_modules(operations.__path__, f"{operations.__name__}.")
        for name, model in vars(importlib.import_module(module.name)).items()
        if inspect.isclass(model)
        and issubclass(model, Value)
        and model is not Value
        and model not in vocabulary().values()
    }
    text = pages.section(PAGE, "Parts of operations")
    headings = {line[4:] for line in text.splitlines() if line.startswith("### ")}
    assert headings == set(parts)
    for name, model in parts.items():
        table = pages.rows(pages.section(PAGE, name))
        found = sorted((row[0], row[1]) for row in table)
        assert found == sorted([*described(model), *tag(model)]), name


def test_void_reasons_are_documented_in_the_words_that_interfaces_show() -> None:
    table = {row[0]: row[1] for row in pages.rows(pages.section(PAGE, "Void reasons"))}
    assert table == EXPLANATIONS


def test_the_rules_on_the_page_name_only_void_reasons_that_exist() -> None:
    for name, model in vocabulary().items():
        text = pages.section(PAGE, name)
        rules = [line for line in text.splitlines() if not line.startswith("|")]
        fields = {name for name, _ in described(model)}
        known = set(EXPLANATIONS) | fields | set(vocabulary()) | set(words(model))
        for word in pages.code_in("\n".join(rules)):
            assert word in known or "." in word or " " in word, f"{name}: {word}"


def tag(model: type[Value]) -> list[tuple[str, str]]:
    """The field that tells this part from the others of a union."""
    config = model.__struct_config__
    return [(config.tag_field, f"`{config.tag}`")] if config.tag_field else []


def words(model: type[Value]) -> list[str]:
    """Enumeration values of a model's own fields."""
    return [value for _, kind in described(model) for value in pages.code_in(kind)] + [
        "used",
        "seen",
    ]
