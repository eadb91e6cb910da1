"""How whole a recording is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl

from cbtools.errors import ConfigError
from cbtools.plot import canvas
from cbtools.raw.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Span = tuple[datetime, datetime]

_MOST_CELLS: Final = 26
"""Of more rows or columns the numbers would not be legible."""


def coverage(hours: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw in how many minutes of each hour a product has messages, and how far its book is ok.

    Parameters
    ----------
    hours : polars.DataFrame
        ``JobReport.coverage``: product_id, hour, minutes, messages, ok.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A row a product, a column an hour; hours without messages are left empty. In each cell, the share of
        the messages behind which the book is ok; of more than 26 products or hours that would not be legible.

    Raises
    ------
    ConfigError
        If the frame has no rows.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> hour = datetime(2025, 11, 26, 14, tzinfo=UTC)
    >>> told = {"product_id": "A-B", "hour": hour, "minutes": 60, "messages": 9, "ok": 9}
    >>> [text.get_text() for text in coverage(pl.DataFrame([told])).texts]
    ['100%']
    """
    if hours.is_empty():
        raise ConfigError("there is no coverage to draw: the job ran no segment with messages")
    products = hours["product_id"].unique().sort().to_list()
    first, last = hours["hour"].sort()[0], hours["hour"].sort()[-1]
    columns = pl.datetime_range(first, last, "1h", eager=True).to_list()
    size = (max(5.5, min(12.0, 3.0 + 0.6 * len(columns))), max(2.4, min(12.0, 1.4 + 0.36 * len(products))))
    ax = canvas.new_axes(ax, size)
    minutes = [[float("nan")] * len(columns) for _ in products]
    small = max(len(columns), len(products)) <= _MOST_CELLS
    for product, hour, covered, messages, ok in hours.select(
        "product_id", "hour", "minutes", "messages", "ok"
    ).iter_rows():
        if messages:
            row, column = products.index(product), columns.index(hour)
            minutes[row][column] = covered
            if small:
                dark = covered > 30
                ax.text(
                    column, row, f"{_percent(ok / messages)}%", ha="center", va="center",
                    fontsize="small" if len(columns) <= 14 else "x-small",
                    color="white" if dark else "black",
                )  # fmt: skip
    image = ax.imshow(minutes, aspect="auto", cmap="cividis_r", vmin=0, vmax=60)
    bar = ax.figure.colorbar(image, ax=ax, ticks=range(0, 61, 15), pad=0.02)
    bar.set_label("minutes with messages", fontsize="small")
    bar.outline.set_visible(False)
    ax.set_yticks(range(len(products)), products)
    step = max(1, len(columns) // 12)
    ax.set_xticks(range(0, len(columns), step), _named(columns[::step]))
    _part_cells(ax, len(columns), len(products))
    span = f"{first:%F}" if first.date() == last.date() else f"{first:%F} to {last:%F}"
    ax.set_xlabel(f"hour (UTC), {span}")
    title = "What is covered, and how much of the book is ok?" if small else "What is covered?"
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[:].set_visible(False)
    ax.tick_params(which="both", length=0)
    return ax


def _named(hours: list[datetime]) -> list[str]:
    """Name hours, with the day under the first of each where there are more days than one."""
    if hours[0].date() == hours[-1].date():
        return [f"{hour:%H}" for hour in hours]
    named, day = [], None
    for hour in hours:
        named.append(f"{hour:%H}" if hour.date() == day else f"{hour:%H}\n{hour:%m-%d}")
        day = hour.date()
    return named


def _part_cells(ax: Axes, columns: int, rows: int) -> None:
    """Draw lines of the background between the cells, so that each is seen."""
    if max(columns, rows) <= _MOST_CELLS:
        ax.set_xticks([k + 0.5 for k in range(columns - 1)], minor=True)
        ax.set_yticks([k + 0.5 for k in range(rows - 1)], minor=True)
        ax.grid(which="minor", color=ax.get_facecolor(), linewidth=1.5)


def _percent(share: float) -> str:
    """Show a share in percent; what is not all of it is never shown as 100."""
    return "100" if share == 1.0 else f"{min(99.9, 100 * share):.3g}"


def gaps(
    gaps: pl.DataFrame,
    *,
    hours: pl.DataFrame | None = None,
    span: tuple[datetime, datetime] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw when frames were lost, how many, and whether that unproved a book.

    Parameters
    ----------
    gaps : polars.DataFrame
        Rows of the ``gaps`` table, as in ``JobReport.gaps`` or ``read_raw(...).gaps``: capture_time,
        expected, got and products; ``got - expected`` frames are lost. A gap stands where the frame behind
        it was received. Bare frames have no such time (null); how many of these gaps cannot be drawn is told.
        More than a picture can show are thinned, and the largest kept.
    hours : polars.DataFrame, optional
        ``JobReport.coverage``: product_id, hour, messages. Hours without a message of any product are shaded:
        that there are no gaps there says nothing.
    span : tuple of datetime, optional
        From when to when; without a zone it is UTC. Gaps outside are left out. By default that of the hours,
        or else of the gaps.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A stem a gap, on a logarithmic scale. Three kinds are told apart: gaps that unproved a book; those at
        the start of a connection, whose first frames were lost; and those before a book had begun.

    Raises
    ------
    ConfigError
        If the frame lacks a column, has gaps of which none has a time or one has no number, or is empty and
        neither hours nor a span are given; or the span does not go forwards.

    Examples
    --------
    >>> import cbtools as cb
    >>> ax = gaps(cb.read_raw(cb.sample_path()).gaps)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['unproved a book: 2 gaps, 5 frames']
    """
    canvas.check_columns(gaps, ("capture_time", "expected", "got", "products"))
    if hours is not None:
        canvas.check_columns(hours, ("hour", "messages"))
        hours = hours.filter(pl.col("messages") > 0)
    if gaps["expected"].has_nulls() or gaps["got"].has_nulls():
        raise ConfigError("a gap has no expected or got, which are never null in the table of gaps")
    timed = gaps.drop_nulls("capture_time").sort("capture_time", maintain_order=True)
    if timed.is_empty() and not gaps.is_empty():
        raise ConfigError(
            "these gaps have no capture_time, as those of bare frames: there is no time to draw them at; "
            "fill it, e.g. with the server_time of the level2 row of the same line"
        )
    first, last = _span(timed, hours, span)
    rows = timed.filter(pl.col("capture_time").is_between(first, last)).select(
        "capture_time", kind=_KIND, lost=pl.col("got") - pl.col("expected")
    )

    ax = canvas.new_axes(ax, (10, 3.6))
    ax.set_yscale("log")
    for kind, (colour, marker) in _GAPS.items():
        of_kind = rows.filter(pl.col("kind") == kind)
        if of_kind.height:
            label = f"{kind}: {number(of_kind.height, 'gap')}, {number(int(of_kind['lost'].sum()), 'frame')}"
            drawn = canvas.thinned(of_kind, "capture_time", ["lost"])
            when, lost = drawn["capture_time"].to_numpy(), drawn["lost"].to_numpy()
            ax.vlines(when, _FLOOR, lost, color=colour, linewidth=1.2, alpha=0.7)
            ax.scatter(when, lost, 42, color=colour, marker=marker, linewidths=0, label=label, zorder=3)
    if gaps.height > timed.height:
        untimed = number(gaps.height - timed.height, "gap")
        ax.plot([], [], " ", label=f"not drawn: {untimed} without time of receipt")
    if rows.is_empty():
        ax.text(0.5, 0.5, "no gaps", transform=ax.transAxes, ha="center", va="center", fontsize="x-large")
    if hours is not None:
        _shade_hours(ax, hours, first, last)
    _finish_gaps(ax, first, last, max(rows["lost"], default=1))
    return ax


_FLOOR: Final = 0.6
"""Where the axis of frames begins, which has no 0: one frame is seen above it."""
_KIND: Final = (
    pl.when(pl.col("products").list.len() > 0)
    .then(pl.lit("unproved a book"))
    .when(pl.col("expected") == 0)
    .then(pl.lit("start of a connection"))
    .otherwise(pl.lit("before any book"))
)
_GAPS: Final = {
    "unproved a book": (canvas.SELL, "o"),
    "start of a connection": (canvas.LINE, ">"),
    "before any book": ("#999999", "s"),
}
"""Kind of gap → its colour and marker."""


def _span(timed: pl.DataFrame, hours: pl.DataFrame | None, span: _Span | None) -> _Span:
    """Tell from when to when gaps are drawn."""
    if span is not None:
        first, last = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in span)
        if not first < last:
            raise ConfigError(f"span must be two times, the earlier first, not {first} and {last}")
        return first, last
    if hours is not None and not hours.is_empty():
        ordered = hours["hour"].sort()
        return ordered[0], ordered[-1] + timedelta(hours=1)
    if timed.is_empty():
        raise ConfigError("there are no gaps: to draw that, give span=(first, last), when it was recorded")
    first, last = timed["capture_time"][0], timed["capture_time"][-1]
    around = max((last - first) / 50, timedelta(seconds=1))
    return first - around, last + around


def _shade_hours(ax: Axes, hours: pl.DataFrame, first: datetime, last: datetime) -> None:
    """Shade the hours in which there is no message."""
    begin = first.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    label: str | None = "no messages in this hour"
    heard = set(hours["hour"].to_list())
    for hour in pl.datetime_range(begin, last, "1h", closed="left", eager=True):
        if hour not in heard:
            ax.axvspan(hour, hour + timedelta(hours=1), color="0.5", alpha=0.25, linewidth=0, label=label)
            label = None


def _finish_gaps(ax: Axes, first: datetime, last: datetime, most: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    canvas.time_axis(ax)
    ax.set_xlim(first, last)  # type: ignore[arg-type]
    ax.set_ylim(_FLOOR, max(10, most) * 1.6)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 500 else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    title = "When were frames lost, and how many?"
    canvas.finish(ax, title, canvas.clock_label("capture_time"), "frames lost in a gap")
    if ax.get_legend_handles_labels()[1]:
        canvas.legend(ax, 2)
