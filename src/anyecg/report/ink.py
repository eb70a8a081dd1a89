"""What every drawing shares: SVG paths and text, escaping, and colours."""

from colorsys import hls_to_rgb
from html import escape

import numpy as np

PAPER, THIN, THICK = "#fffafa", "#f7d3d3", "#e9a3a3"
INK, MEASURED, DECODED = "#111111", "#1b1b1b", "#ff7f2a"
RESTORED, DERIVED, MUTED, MARK = "#1d4ed8", "#0f6b5c", "#666666", "#b91c1c"
OUTSTANDING = "#ffd166"

_VIRIDIS = (
    *("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c"),
    *("#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"),
)
"""Eleven colours of viridis (van der Walt, Smith; CC0): even steps of lightness, readable by the colour-blind."""

_GOLDEN = 0.6180339887498949


def path_data(lines: list[np.ndarray]) -> str:
    """Return SVG path data, in hundredths of a millimetre, of lines of shape (n_points, 2) in mm.

    Whole numbers and relative steps take a third of the room of absolute ones; rounding comes first, so it does not
    add up along the line.
    """
    parts = []
    for line in lines:
        points = np.rint(np.asarray(line) * 100).astype(np.int64)
        steps = " ".join(map(str, np.diff(points, axis=0).ravel().tolist())).replace(" -", "-")
        parts.append(f"M{points[0, 0]} {points[0, 1]}l{steps}")
    return "".join(parts)


def text(x_mm: float, y_mm: float, words: str, size_mm: float = 3.0, fill: str = INK, extra: str = "") -> str:
    """Return an SVG text element; the words are escaped."""
    return f'<text x="{x_mm:.2f}" y="{y_mm:.2f}" font-size="{size_mm:g}" fill="{fill}"{extra}>{escape(words)}</text>'


def figure(width_mm: float, height_mm: float, title: str, description: str, body: list[str], key: str) -> str:
    """Return an inline SVG whose user unit is one millimetre, on screen and on paper."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{key}-t {key}-d" '
        f'width="{width_mm:g}mm" height="{height_mm:g}mm" viewBox="0 0 {width_mm:g} {height_mm:g}">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def hatch(key: str) -> str:
    """Return the definition of the hatching that stands for "not recorded"; use it as ``url(#key)``."""
    return (
        f'<defs><pattern id="{key}" width="1.6" height="1.6" patternUnits="userSpaceOnUse">'
        '<rect width="1.6" height="1.6" fill="#f1f1f1"/><path d="M0 1.6L1.6 0" stroke="#b5b5b5" stroke-width=".2"/>'
        "</pattern></defs>"
    )


def code_colour(code: int) -> str:
    """Return a colour that is always the same for a code, and far from those of its neighbours' numbers."""
    hue = (code * _GOLDEN) % 1.0
    lightness = 0.60 + 0.22 * ((code * _GOLDEN * _GOLDEN * 7) % 1.0)
    red, green, blue = hls_to_rgb(hue, lightness, 0.62)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def heat_colour(share: float) -> str:
    """Return the viridis colour of a number from 0 to 1, in steps of 1/40."""
    place = round(min(max(share, 0.0), 1.0) * 40) / 40 * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    mix = place - low
    below, above = (tuple(int(_VIRIDIS[i][k : k + 2], 16) for k in (1, 3, 5)) for i in (low, low + 1))
    return "#" + "".join(f"{round(b + (a - b) * mix):02x}" for b, a in zip(below, above, strict=True))
