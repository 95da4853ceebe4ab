"""A picture of a job's result with the words that belong to it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure


_COMPRESSION = 3  # zlib's 6 takes a third longer for a twelfth less


@dataclass(frozen=True)
class Figure:
    """title, caption (what one should see in it), and the picture as PNG bytes."""

    name: str  # file stem: "fsc"
    title: str
    caption: str
    png: bytes

    @staticmethod
    def from_matplotlib(figure: MatplotlibFigure, name: str, title: str, caption: str) -> Figure:
        """Render a matplotlib figure (made with matplotlib.figure.Figure, not pyplot: no global state)."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, pil_kwargs={"compress_level": _COMPRESSION})
        return Figure(name, title, caption, buffer.getvalue())
