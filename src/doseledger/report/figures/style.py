"""One look for all figures, and the same bytes for the same data.

Figures are as wide as the text of an A4 page, so that a font of 12 points is 12 points in print.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from doseledger.core.errors import BadInput
from doseledger.core.files import all_or_none, atomic_path

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.figure import Figure

WIDTH_IN = 7.0
FONT_PT = 12
# Resolution of pictures in a page: on a screen more is not seen, and a page has to be sent; the files have more.
PAGE_DPI = 150
# Small pictures of which a page holds many.
SMALL_DPI, JPEG_QUALITY = 110, 82
# Okabe & Ito, "Color Universal Design" (2008), without yellow, lost on white; then three of Paul Tol's muted set.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#332288", "#999933", "#882255",
)  # fmt: skip
# Of structures, on white and on an image in grey alike. Any two of the first ten are 25 apart in CIE L*a*b*, in normal
# vision and without red or green (Machado et al., IEEE TVCG 15:1291, 2009).
STRUCTURE_COLOURS = (
    "#E02000", "#FFA000", "#FF00C0", "#006080", "#00C0FF", "#6000FF", "#FFA0A0", "#8060FF", "#C02040", "#FFA060",
    "#208080", "#E0A0C0",
)  # fmt: skip
DASHED = (0, (4, 2))
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": FONT_PT,
    "ytick.labelsize": FONT_PT,
    "legend.fontsize": FONT_PT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Element ids and font subsets come from a hash: a fixed salt makes the same figure the same bytes.
    "svg.hashsalt": "doseledger",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
# What each format would otherwise say of clock and software.
NO_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# Points of a row keep their size up to so many.
POINT_PT, FULL_SIZE_POINTS = 5.0, 60
# A row of more points is an image in an SVG, where each is an element that browser and PDF draw by itself.
MOST_ELEMENTS = 100
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the look of all figures within the block; a person's own matplotlibrc doesn't count."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Figures are built without pyplot, so no backend is chosen and no window can open.
        matplotlib.rcParams.update(STYLE)
        yield


def structure_colours(names: Sequence[str]) -> dict[str, str]:
    """Return one colour a structure, the same wherever it is drawn or named.

    Parameters
    ----------
    names
        Of the protocol, in its order: so a structure that a case lacks changes no other's colour. With more than
        twelve the colours begin anew.
    """
    return {name: STRUCTURE_COLOURS[index % len(STRUCTURE_COLOURS)] for index, name in enumerate(names)}


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure, as wide as the page's text where nothing else is said."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in))


def point_style(n_points: int) -> dict[str, Any]:
    """Return how the points of one row are drawn: smaller where so many would cover each other, 700 cases say."""
    size = POINT_PT * min(1.0, (FULL_SIZE_POINTS / max(1, n_points)) ** 0.5)
    return {"markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.1 * size}


def save_figure(figure: Figure, folder: Path, stem: str, dpi: int) -> dict[str, Path]:
    """Write a figure as PNG, SVG and PDF without clock or software name; return the path of each format."""
    paths = {}
    with all_or_none():
        for kind, metadata in NO_METADATA.items():
            paths[kind] = folder / f"{stem}.{kind}"
            with atomic_path(paths[kind]) as part, _few_elements(figure, kind):
                figure.savefig(part, format=kind, dpi=dpi, metadata=metadata)
    return paths


@contextmanager
def _few_elements(figure: Figure, kind: str) -> Iterator[None]:
    """Make images of rows of many points while a figure is saved as SVG."""
    from matplotlib.lines import Line2D

    rows = [
        line
        for line in figure.findobj(Line2D)
        if kind == "svg" and line.get_marker() != "None" and np.size(line.get_xdata()) > MOST_ELEMENTS
    ]
    for row in rows:
        row.set_rasterized(True)
    yield
    for row in rows:
        row.set_rasterized(False)


def saved_svg(draw: Callable[[], Figure], folder: Path, stem: str, dpi: int) -> str:
    """Draw a figure in the one look, save it in each format, and return its SVG as data URI for a page."""
    with house_style():
        return data_uri(save_figure(draw(), folder, stem, dpi)["svg"])


def saved_png(draw: Callable[[], Figure], folder: Path, stem: str, dpi: int) -> str:
    """Draw a figure in the one look, save it in each format, and return it as `page_uri` does."""
    with house_style():
        figure = draw()
        save_figure(figure, folder, stem, dpi)
        return page_uri(figure, dpi)


def page_uri(figure: Figure, dpi: int) -> str:
    """Return a figure as the data URI of a PNG for a page, as fine as a screen shows and no finer than `dpi`."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=min(dpi, PAGE_DPI))
    # matplotlib writes an opaque fourth channel, a fifth of the file.
    return png_uri(Image.open(drawn).convert("RGB"))


def svg_uri(figure: Figure) -> str:
    """Return a figure as the data URI of an SVG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata=NO_METADATA["svg"])
    return _as_uri("svg+xml", drawn.getvalue())


def small_uri(figure: Figure) -> str:
    """Return a figure as the data URI of a small JPEG."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=SMALL_DPI)
    return _image_uri(Image.open(drawn).convert("RGB"), "JPEG", quality=JPEG_QUALITY, subsampling=0)


def png_uri(image: PIL.Image.Image) -> str:
    """Return an image as the data URI of a PNG."""
    return _image_uri(image, "PNG")


def _image_uri(image: PIL.Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return _as_uri(kind.lower(), buffer.getvalue())


def _as_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def data_uri(path: Path) -> str:
    """Return an image file as a data URI, so that a page needs no other file.

    Raises
    ------
    BadInput
        If the file is neither PNG nor SVG.
    """
    if path.suffix not in MEDIA_TYPES:
        raise BadInput(f"{path}: only {', '.join(MEDIA_TYPES)} can be shown in a page")
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
