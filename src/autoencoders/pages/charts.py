"""Charts as plain data for plotly: traces and a layout, to which charts.js adds the colours of the page.

Lines are (x, y) by name. What is no number is left out.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from autoencoders.digits import Interval, number
from autoencoders.palette import COLOURS, GRAY

Line = tuple[Sequence[Any], Sequence[float]]
MOST_POINTS = 500  # of a line: beyond, every k-th and the last
LETTERS = 22  # in a line of what stands beside an interval
APART = 0.06  # of an axis of parallel coordinates, so that two numbers don't overlap


class Chart(NamedTuple):
    """A chart, and the sentence below it that says what to look at."""

    caption: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    alt: str

    @property
    def figure(self) -> dict[str, Any]:
        return {"data": self.traces, "layout": self.layout}


def plain(text: object) -> str:
    """A text as plotly shows it, which takes <b> and <a> for tags."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def lines(
    series: Mapping[str, Line], x: str, y: str, caption: str, *, log_y: bool = False, markers: bool = False
) -> Chart:
    """A line for each name, of numbers or of named places."""
    traces = []
    for index, (name, (xs, ys)) in enumerate(series.items()):
        xs, ys = _finite(xs, ys)
        few = markers or len(xs) < 30
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers" if few else "lines", "name": plain(name),
                "x": xs, "y": ys, "line": {"color": COLOURS[index % len(COLOURS)], "width": 2},
                "marker": {"size": 6, "symbol": index % 8},
            }
        )  # fmt: skip
    layout = _layout(x, y, legend=len(series) > 1)
    layout["yaxis"]["type"] = "log" if log_y and _positive(traces, "y") else "linear"
    return Chart(caption, traces, layout, f"{y} against {x}: {', '.join(map(str, series))}")


def intervals(
    values: Mapping[str, tuple[float, Interval | None]],
    x: str,
    caption: str,
    colours: Mapping[str, str],
    *,
    from_zero: bool = True,
) -> Chart:
    """A dot for each name, with a bar for its interval.

    Args:
        colours: of some of the names; the others have one together.
        from_zero: whether the axis begins at 0, or where the values do, which tells close ones apart.
    """
    known = {name: both for name, both in values.items() if math.isfinite(both[0])}
    names = ["<br>".join(map(plain, wrap(name, LETTERS))) for name in known]
    numbers = [value for value, _ in known.values()]
    trace = {
        "type": "scatter", "mode": "markers", "x": numbers, "y": names,
        "error_x": error_bars(numbers, [ends or (value, value) for value, ends in known.values()]),
        "text": [f" ({ends[0]:.5g} to {ends[1]:.5g})" if ends else "" for _, ends in known.values()],
        "cliponaxis": False,
        "marker": {"size": 11, "color": [colours.get(name, GRAY) for name in known]},
        "hovertemplate": "%{y}: %{x:.5g}%{text}<extra></extra>",
    }  # fmt: skip
    layout = _layout(x, "", legend=False)
    layout["yaxis"] |= {"range": [len(names) - 0.5, -0.5], "type": "category"}
    layout["xaxis"]["rangemode"] = "tozero" if from_zero else "normal"
    breaks = max((name.count("<br>") for name in names), default=0)
    layout["height"] = 110 + max(34, 17 * (breaks + 1)) * len(names)
    said = ", ".join(f"{name} {value:.4g}" for name, (value, _) in known.items())
    return Chart(caption, [trace], layout, f"{x}: {said}")


def error_bars(values: Sequence[float], ends: Sequence[Interval]) -> dict[str, Any]:
    """From the lower to the upper end around each value."""
    return {
        "type": "data", "symmetric": False, "thickness": 2, "width": 5,
        "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
    }  # fmt: skip


def bars(
    places: Sequence[float],
    counts: Sequence[float],
    x: str,
    y: str,
    caption: str,
    marked: float | None = None,
) -> Chart:
    """A bar at each place; a line at what is `marked`, the median."""
    trace = {
        "type": "bar", "x": list(places), "y": list(counts), "marker": {"color": COLOURS[0]},
        "hovertemplate": "%{x:.4g}: %{y:.4g}<extra></extra>",
    }  # fmt: skip
    layout = _layout(x, y, legend=False) | {"bargap": 0.05}
    if len(places) <= 10 and all(float(place).is_integer() for place in places):
        layout["xaxis"]["dtick"] = 1
    if marked is not None:
        layout["shapes"] = [
            {
                "type": "line", "x0": marked, "x1": marked, "y0": 0, "y1": 1, "yref": "paper",
                "line": {"color": COLOURS[2], "dash": "dash", "width": 2},
            }
        ]  # fmt: skip
        layout["annotations"] = [
            {
                "text": f"median {marked:.4g}", "x": marked, "y": 1, "yref": "paper", "showarrow": False,
                "xanchor": "left", "xshift": 5,
            }
        ]  # fmt: skip
    return Chart(caption, [trace], layout, f"{y} by {x}")


def _layout(x: str, y: str, legend: bool) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": plain(x)}, "automargin": True},
        "yaxis": {"title": {"text": plain(y)}, "automargin": True},
        "showlegend": legend,
        "height": 320,
    }


def _finite(xs: Sequence[Any], ys: Sequence[float]) -> tuple[list[Any], list[float]]:
    kept = [(plain(x) if isinstance(x, str) else x, y) for x, y in zip(xs, ys, strict=True) if _number(x, y)]
    step = max(1, len(kept) // MOST_POINTS)
    thinned = kept[::step] + ([kept[-1]] if kept and (len(kept) - 1) % step else [])
    return [x for x, _ in thinned], [y for _, y in thinned]


def _number(x: Any, y: float) -> bool:
    return math.isfinite(y) and (isinstance(x, str) or math.isfinite(x))


def _positive(traces: Sequence[dict[str, Any]], axis: str) -> bool:
    return all(value > 0 for trace in traces for value in trace[axis])


class Axis(NamedTuple):
    """A line of parallel coordinates: a place in [0, 1] for each job, and what stands at some places."""

    places: list[float]
    ticks: list[tuple[float, str]]


def axis(values: Sequence[Any]) -> Axis:
    """Of numbers, evenly or, where all are positive and far apart, by their logarithm; or of named values, in
    their order."""
    numbers = [number(value) for value in values]
    if any(value is None for value in numbers):
        names = list(dict.fromkeys(map(str, values)))
        last = max(1, len(names) - 1)
        ticks = [(index / last, plain(name)) for index, name in enumerate(names)]
        return Axis([names.index(str(value)) / last for value in values], ticks)
    known = [value for value in numbers if value is not None]
    low, high = min(known), max(known)
    scale = math.log if low > 0 and high > 8 * low else float
    width = (scale(high) - scale(low)) or 1
    at = {value: (scale(value) - scale(low)) / width for value in known}
    shown = [low]
    for value in sorted(at):  # where there is room for it, also below the last
        if at[value] - at[shown[-1]] > APART and (value == high or 1 - at[value] > APART):
            shown.append(value)
    return Axis([at[value] for value in known], [(at[value], f"{value:.4g}") for value in shown])


def parallel(names: Sequence[str], axes: Mapping[str, Axis], caption: str) -> Chart:
    """Parallel coordinates, coloured by the last axis."""
    places = list(zip(*(of.places for of in axes.values()), strict=True))
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": plain(name),
            "x": list(range(len(axes))), "y": list(at),
            "line": {"color": _shade(at[-1]), "width": 2},
            "hovertemplate": "job %{fullData.name}<extra></extra>",
        }
        for name, at in zip(names, places, strict=True)
    ]  # fmt: skip
    layout = _layout("", "", legend=False) | {"height": 380, "hovermode": "closest"}
    titles = {"tickvals": list(range(len(axes))), "ticktext": [plain(key) for key in axes], "side": "top"}
    layout["xaxis"] |= titles | {"showgrid": True, "range": [-0.25, len(axes) - 0.55]}
    layout["yaxis"] |= {"visible": False, "range": [-0.06, 1.06]}
    layout["annotations"] = [
        {
            "x": index, "y": at, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4,
            "font": {"size": 11},
        }
        for index, of in enumerate(axes.values())
        for at, text in of.ticks
    ]  # fmt: skip
    return Chart(caption, traces, layout, f"parallel coordinates of {len(names)} jobs over {', '.join(axes)}")


def _shade(place: float) -> str:
    """From blue for the smallest to orange for the largest, which any colour vision tells apart."""
    blue, orange = (bytes.fromhex(colour[1:]) for colour in (COLOURS[0], COLOURS[6]))
    return "#" + "".join(f"{round(a + place * (b - a)):02x}" for a, b in zip(blue, orange, strict=True))
