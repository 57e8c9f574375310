"""Charts as Vega-Lite, compiled to Vega when the page is made; the page holds Vega itself and needs no network.

Colours are variables of the page's style sheet, so that one drawing serves light, dark and paper. Data carry fixed
field names: no text of a run becomes part of an expression.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from se_framework.errors import ConfigError

VERSION = "6.4"
"""Of Vega-Lite, among those that the extra ``report`` holds."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
QUIET, LINE, ACCENT = "var(--quiet)", "var(--line)", "var(--accent)"
SNIPPET = "window.seEmbed = vegaEmbed;"

CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": QUIET, "titleColor": QUIET, "gridColor": LINE, "domainColor": LINE, "tickColor": LINE,
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelFontWeight": "normal",
    },
}  # fmt: skip


def _vl_convert() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise ConfigError(
            "a report needs the package vl-convert-python, which holds its charts: pip install 'se-framework[report]'"
        ) from None
    return vl_convert


@cache
def runtime() -> str:
    """Return Vega and Vega-Embed as JavaScript, some 900 kB, which set ``window.seEmbed``.

    Raises:
        ConfigError: the extra ``report`` is missing.
    """
    return str(_vl_convert().javascript_bundle(SNIPPET, vl_version=VERSION))


@cache
def _compiled(spec: str) -> str:
    return json.dumps(_vl_convert().vegalite_to_vega(spec, vl_version=VERSION))


def compiled(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the Vega of a Vega-Lite specification.

    Raises:
        ConfigError: the extra ``report`` is missing.
    """
    found: dict[str, Any] = json.loads(_compiled(json.dumps(spec)))
    return found


def _base(height: int) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": CONFIG,
        "padding": {"left": 2, "right": 8, "top": 6, "bottom": 2},
    }


def lines(
    x_title: str, log: bool = False, several: bool = False, zoomed: bool = True, height: int = 190
) -> dict[str, Any]:
    """Return lines over x, each with a band around it where there is one.

    The page hands in ``line`` and ``dots`` (x, y, c), ``band`` (x, low, high, c), where c is a colour, ``marks`` (y),
    and the ends of what is shown, ``from`` and ``to``.
    """
    x: dict[str, Any] = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": {"zero": False, "nice": False},
    }
    x["axis"] = {"grid": False, "tickCount": 5, "labelOverlap": True}
    scale: dict[str, Any] = {"type": "log"} if log else {"zero": False}
    y_axis: dict[str, Any] = {"tickCount": 5, "domain": False, "ticks": False}
    y_axis |= {"format": ".0e" if log else "~g"}
    y = {"type": "quantitative", "title": None, "scale": scale, "axis": y_axis}
    colour: dict[str, Any] = (
        {"field": "c", "type": "nominal", "scale": None, "legend": None} if several else {"value": ACCENT}
    )
    within = [{"filter": "(from == null || datum.x >= from) && (to == null || datum.x <= to)"}]
    layers = [
        {
            "data": {"name": "band"},
            "transform": within if zoomed else [],
            "mark": {"type": "area", "opacity": 0.13 if several else 0.22},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "data": {"name": "line"},
            "transform": within if zoomed else [],
            "mark": {"type": "line", "strokeWidth": 1.6, "strokeJoin": "round"},
            "encoding": {"x": x, "y": y | {"field": "y"}, "color": colour},
        },
        {
            "data": {"name": "dots"},
            "transform": within if zoomed else [],
            "mark": {"type": "point", "filled": True, "size": 18, "opacity": 1},
            "encoding": {"x": x, "y": y | {"field": "y"}, "color": colour},
        },
        {
            "data": {"name": "marks"},
            "mark": {"type": "rule", "strokeDash": [3, 3], "color": QUIET},
            "encoding": {"y": y | {"field": "y"}},
        },
    ]
    params = [{"name": "from", "value": None}, {"name": "to", "value": None}] if zoomed else []
    return _base(height) | {"params": params, "layer": layers}


def bars(x_title: str, height: int = 190) -> dict[str, Any]:
    """Return a histogram: ``bars`` (x, x2, y)."""
    x = {"field": "x", "type": "quantitative", "title": x_title, "scale": {"nice": False, "zero": False}}
    encoding = {
        "x": x | {"axis": {"grid": False, "tickCount": 6}}, "x2": {"field": "x2"},
        "y": {"field": "y", "type": "quantitative", "title": "share of samples",
              "axis": {"tickCount": 4, "domain": False, "ticks": False, "format": "~%"}},
        "y2": {"datum": 0},
    }  # fmt: skip
    mark = {"type": "bar", "color": ACCENT, "opacity": 0.75, "binSpacing": 0}
    return _base(height) | {"data": {"name": "bars"}, "mark": mark, "encoding": encoding}


def plane(diverging: bool, side: int = 300) -> dict[str, Any]:
    """Return a landscape over the plane: ``cells`` (x, x2, y, y2, v), ``points`` (x, y), ``arrows`` (x, y, x2, y2).

    Corners of the plane are (``left``, ``low``) and (``right``, ``high``); where values have a sign, ``reach`` is the
    greatest of either.

    Its own colours are those of a print, in light and dark: a landscape has no background.
    """

    def axis(field: str, title: str, start: str, end: str) -> dict[str, Any]:
        scale = {"zero": False, "nice": False, "domain": [{"expr": start}, {"expr": end}]}
        shown = {"field": field, "title": title, "type": "quantitative", "scale": scale}
        return shown | {"axis": {"grid": False, "tickCount": 5}}

    x, y = axis("x", "x1", "left", "right"), axis("y", "x2", "low", "high")
    signed = {"scheme": "blueorange", "domain": [{"expr": "-reach"}, {"expr": "reach"}]}
    scheme = signed if diverging else {"scheme": "viridis"}
    legend = {
        "orient": "bottom",
        "gradientLength": 260,
        "gradientThickness": 10,
        "format": "~g",
        "labelColor": QUIET,
        "title": None,
        "labelFontSize": 11,
    }
    colour = {"field": "v", "type": "quantitative", "scale": scheme, "legend": legend}
    stroke = "#101418"
    layers = [
        {
            "data": {"name": "cells"},
            "mark": {"type": "rect", "clip": True},
            "encoding": {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "y2"}, "color": colour},
        },
        {
            "data": {"name": "points"},
            "mark": {
                "type": "circle",
                "size": 10,
                "color": stroke,
                "stroke": "#fff",
                "strokeWidth": 0.5,
                "opacity": 0.75,
                "clip": True,
            },
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"name": "arrows"},
            "mark": {"type": "rule", "color": stroke, "strokeWidth": 1, "clip": True},
            "encoding": {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "y2"}},
        },
    ]
    square = {"width": side, "height": side, "autosize": {"type": "pad", "contains": "padding"}}
    names = ("left", "right", "low", "high", *(("reach",) if diverging else ()))
    params = [{"name": name, "value": -1 if name in ("left", "low") else 1} for name in names]
    return _base(side) | square | {"view": {"fill": "#e9ecef"}, "params": params, "layer": layers}


SPECS: dict[str, Any] = {
    "rounds": lines("round"),
    "rounds-log": lines("round", log=True),
    "many": lines("round", several=True, height=230),
    "many-log": lines("round", log=True, several=True, height=230),
    "profile": lines("x", several=True, zoomed=False, height=240),
    "bars": bars("weight of a sample, dq/dp"),
    "plane": plane(diverging=False),
    "plane-signed": plane(diverging=True),
}
"""Every kind of chart by the name under which a page asks for it."""
