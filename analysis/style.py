"""How charts look: colours that a colour-blind reader can distinguish, hatches that survive a printer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from analysis import lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too faint for bars on white; in an
# order in which neighbours differ in lightness as well as in hue, then three dark tones for longer legends.
COLOURS = (
    "#56B4E9",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#0072B2",
    "#CC79A7",
    "#4D4D4D",
    "#7F6A00",
    "#882255",
    "#9ADBC5",
)
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "", "ooo", "++", "|||")
"""One per colour; dense marks on dark colours and none on the first, so that the bars stay calm."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""One per colour, for lines."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)), "-", (0, (5, 1.5))) + ("-",) * 4
"""One per colour, for lines in print."""

INK = "#1F2328"
FAINT_INK = "#59636E"
GRID = "#D8DEE4"
FAILED = "#B3261E"
PALE = "#B8C1CC"
BAND_FACE = "#FFE9B8"
BAND_EDGE = "#C98A00"
PUBLISHED_EDGE = "#1F2328"

# Any: matplotlib 3.11 types these keys one by one, earlier releases as text.
_PARAMETERS: Any = {
    # A label is text: dollar signs in it are no mathematics.
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT_INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.55,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    # Text stays text in SVG, and the same data gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "sweeper",
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw in this style, without a display, and leave matplotlib's settings as they were."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context({**_PARAMETERS, "font.family": list(lettering.families())}):
        yield


def rendered(figure: Figure, form: str, *, dpi: int | None = None) -> bytes:
    """Draw a figure as ``png`` or ``svg``; the same data gives the same bytes."""
    content = io.BytesIO()
    more: dict[str, Any] = {} if dpi is None else {"dpi": dpi}
    if form == "svg":
        more["metadata"] = {"Date": None}
    with chart_style():
        figure.savefig(content, format=form, **more)
    return content.getvalue()
