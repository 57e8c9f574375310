"""A film for a page: the frames as pictures in the page itself, a slider and a button, and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = count(1)
PAGE = """<div class="film" id="film{number}">
<img alt="{alt}" width="{width}" src="{first}">
<div><button type="button" aria-label="play or pause">&#9654;</button>
<input type="range" min="0" max="{last}" value="0" aria-label="frame"></div>
<script>
(() => {{
  const film = document.getElementById("film{number}"), frames = {frames};
  const [image, button, slider] = ["img", "button", "input"].map((tag) => film.querySelector(tag));
  let timer = null;
  const show = (k) => {{ slider.value = k; image.src = frames[k]; }};
  const stop = () => {{ clearInterval(timer); timer = null; button.textContent = "\\u25b6"; }};
  const step = () => {{ const k = Number(slider.value) + 1; k < frames.length ? show(k) : stop(); }};
  slider.oninput = () => {{ stop(); show(Number(slider.value)); }};
  button.onclick = () => {{
    if (timer) return stop();
    if (Number(slider.value) === frames.length - 1) show(0);
    timer = setInterval(step, {pause});
    button.textContent = "\\u275a\\u275a";
  }};
}})();
</script></div>"""


class Film:
    """Pictures in a row.

    Args:
        alt: what is to be seen, for those who do not see it.
        pause: milliseconds between two frames.
    """

    def __init__(self, alt: str, pause: int = 160) -> None:
        self.alt, self.pause = alt, pause
        self.frames: list[str] = []
        self.width = 0

    def add(self, figure: Figure, dpi: int = 80) -> None:
        """Keep a figure as it stands."""
        from PIL import Image

        drawn, buffer = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        Image.open(drawn).convert("RGB").quantize(64).save(buffer, "PNG", optimize=True)
        self.frames.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
        self.width = round(figure.get_figwidth() * dpi)

    def pictures(self) -> Sequence[bytes]:
        """Return the frames as PNG files."""
        return [base64.b64decode(frame.partition(",")[2]) for frame in self.frames]

    def _repr_html_(self) -> str:
        """Show the film in a page or a notebook."""
        return PAGE.format(
            number=next(NUMBERS), alt=self.alt, width=self.width, first=self.frames[0], pause=self.pause,
            last=len(self.frames) - 1, frames=str(self.frames),
        )  # fmt: skip
