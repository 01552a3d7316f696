"""Two pictures over one another and a slider that moves the edge between them, as HTML.

The slider is an input of the browser, which the keyboard and screen readers reach. It needs no script file.
"""

from html import escape

SLIDER_CSS = """
.idm-compare { position: relative; width: 100%; margin: 0 auto; border-radius: 8px; overflow: hidden; }
.idm-compare img { display: block; width: 100%; }
.idm-compare img[hidden] { display: none; }
.idm-compare img:last-of-type { position: absolute; inset: 0; width: 100%; height: 100%;
  clip-path: inset(0 calc(100% - var(--edge)) 0 0); }
.idm-compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; appearance: none;
  background: transparent; cursor: ew-resize; touch-action: pan-y; }
.idm-compare input::-webkit-slider-runnable-track { height: 100%; background: transparent; }
.idm-compare input::-webkit-slider-thumb { appearance: none; width: 4px; height: 100%; margin: 0; border: 0;
  border-radius: 0; background: white; box-shadow: 0 0 0 1px rgb(0 0 0 / 0.45); }
.idm-compare input::-moz-range-track { height: 100%; background: transparent; }
.idm-compare input::-moz-range-thumb { width: 4px; height: 100%; border: 0; border-radius: 0; background: white; }
.idm-compare input:focus-visible { outline-offset: -3px; }
"""


def picture_slider(before: str, after: str, label: str, max_width: int) -> str:
    """The pictures and their slider; the page needs :data:`SLIDER_CSS`.

    Args:
        before: the ``<img>`` that is shown on the left of the edge.
        after: the ``<img>`` that is shown on its right; of several all but one are ``hidden``.
        label: what the slider sets, for screen readers: it is the percentage of the width that shows ``before``.
        max_width: the largest width of the pictures in CSS pixels.
    """
    return (
        f'<div class="idm-compare" style="--edge: 50%; max-width: {max_width}px">{after}{before}'
        f'<input type="range" min="0" max="100" value="50" autocomplete="off" aria-label="{escape(label)}" '
        "oninput=\"this.parentNode.style.setProperty('--edge', this.value + '%')\"></div>"
    )
