"""Cells say which column they stand in, so that a telephone can show a row as a card."""

from __future__ import annotations

from audit.console.narrow import label_cells


def test_every_cell_of_a_body_gets_its_columns_heading_as_text() -> None:
    page = (
        '<table class="dense"><thead><tr><th scope="col">Who</th>'
        '<th scope="col" class="num"><em>\u03b5</em> &amp; "limit"</th></tr></thead>'
        '<tbody><tr><th scope="row">basel</th><td class="num">2 of 5</td></tr></tbody></table>'
    )
    assert label_cells(page).endswith(
        '<tbody><tr><th scope="row" data-label="Who">basel</th>'
        '<td class="num" data-label="\u03b5 &amp; &#34;limit&#34;">2 of 5</td></tr></tbody></table>'
    )


def test_a_cell_over_several_columns_has_no_label_and_moves_those_after_it() -> None:
    head = "<thead><tr><th>A</th><th>B</th><th>C</th></tr></thead>"
    page = f'<table>{head}<tr><td colspan="2">both</td><td>last</td></tr></table>'
    assert '<td colspan="2">both</td><td data-label="C">last</td>' in label_cells(page)


def test_tables_keep_to_their_own_headings_and_other_markup_stays_as_it_is() -> None:
    first = "<table><thead><tr><th>A</th></tr></thead><tr><td>1</td></tr></table>"
    bare = "<h2>Time</h2><table><tr><td>2</td></tr></table><time>now</time>"
    assert label_cells(first + bare) == first.replace("<td>", '<td data-label="A">') + bare
