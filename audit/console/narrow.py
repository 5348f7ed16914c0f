"""Tables that a telephone can show: every cell says which column it stands in.

Below 640 pixels the stylesheet draws a row as a card and puts each cell's ``data-label`` before it. The labels are
taken from the headings of the same table, once, where a page is put together, so that no template says them twice.
Only for pages of this package: their attributes hold no ``>``, since every value in them is escaped.
"""

from __future__ import annotations

import re

from markupsafe import Markup

_PIECE = re.compile(r"<(/?)(table|thead|tr|th|td)\b([^>]*)>")
_TAG = re.compile(r"<[^>]+>")
_SPAN = re.compile(r'colspan="(\d+)"')


def label_cells(page: str) -> Markup:
    """Give each cell of each table's body its column's heading as ``data-label``.

    Args:
        page: HTML of this package's templates; its tables are not nested. A cell that spans columns gets no label.
    """
    out: list[str] = []
    headings: list[str] = []
    begun = column = done = 0
    in_head = False
    for piece in _PIECE.finditer(page):
        closing, name, attributes = piece.groups()
        if name == "table":
            headings = []
        elif name == "thead":
            in_head = not closing
        elif name == "tr":
            column = 0
        elif in_head and closing:
            headings.append(_TAG.sub("", page[begun : piece.start()]).replace('"', "&#34;"))
        elif in_head:
            begun = piece.end()
        elif not closing:
            span = _SPAN.search(attributes)
            if span is None and column < len(headings):
                out += (page[done : piece.end() - 1], f' data-label="{headings[column]}">')
                done = piece.end()
            column += int(span[1]) if span else 1
    # What came in was escaped already, and headings are pieces of it.
    return Markup("".join((*out, page[done:])))  # noqa: S704
