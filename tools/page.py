#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Pages of results: one HTML file each, with nothing to load from elsewhere."""

import io

from collections.abc import Collection, Iterable
from html import escape

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.hashsalt"       : "bench", # The same figure is the same file.
    "svg.fonttype"       : "none",
    "font.family"        : "sans-serif",
    "font.size"          : 9,
    "axes.grid"          : True,
    "axes.axisbelow"     : True,
    "grid.color"         : "#dddddd",
    "axes.spines.top"    : False,
    "axes.spines.right"  : False,
    "legend.frameon"     : False,
})

from matplotlib import pyplot
from matplotlib.figure import Figure

# Constants ----------------------------------------------------------------------------------------

# Told apart by any eye (M. Okabe, K. Ito, "Color Universal Design", 2008).
BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#999999", "#000000"

_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25em 0.8em; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid #888; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
.missed { color: #d55e00; font-weight: bold; }
svg { max-width: 100%; height: auto; }
"""

Row = list[str] | tuple[str, list[str]] # Cells, or (class name, cells).

# Elements -----------------------------------------------------------------------------------------

def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>\n"


def table(header: list[str], rows: Iterable[Row], text: Collection[int] = (0,)) -> str:
    """Cells are strings; `text` are the columns aligned to the left. A row is a list, or (class name, list)."""
    def row_html(row: Row, tag: str) -> str:
        name, texts = row if isinstance(row, tuple) else ("", row)
        cells = [f'<{tag}{" class=text" if n in text else ""}>{escape(cell)}</{tag}>' for n, cell in enumerate(texts)]
        return f'<tr class="{name}">{"".join(cells)}</tr>\n'

    return f"<table>\n{row_html(header, 'th')}{''.join(row_html(row, 'td') for row in rows)}</table>\n"


def figure(plot: Figure) -> str:
    """A matplotlib figure as SVG; closes it."""
    file = io.StringIO()
    plot.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(plot)
    return file.getvalue().partition("?>")[2].partition(">")[2] # Without XML declaration and DOCTYPE.


def page(title: str, body: str) -> str:
    """A whole page."""
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n")
