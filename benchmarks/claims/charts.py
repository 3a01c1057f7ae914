"""Line charts of the page, as SVG that is the same on every machine."""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path


def _load():
  """Returns `docs/draw.py`, which is no part of a package."""
  spec = importlib.util.spec_from_file_location('draw', Path(__file__).parents[2] / 'docs' / 'draw.py')
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


draw = _load()
COLORS = (draw.READ, draw.BLUE, draw.GREEN, draw.VIOLET, '#b3261e', '#6b7480', '#9a6700', '#0f766e')
_LEFT, _TOP, _WIDTH, _HEIGHT = 70, 50, 500, 280


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a chart: points (x, y), and a band of points (x, lowest, highest) around it."""

  label: str
  points: Sequence[tuple[float, float]]
  band: Sequence[tuple[float, float, float]] = ()


def line_chart(
  title: str,
  labels: tuple[str, str],
  lines: Sequence[Line],
  mark: tuple[float, str] | None = None,
  least: float | None = None,
) -> str:
  """Returns a chart.

  Args:
    title: what it shows.
    labels: of the axes, horizontal and vertical.
    lines: the lines, in the order of the legend.
    mark: a vertical line at some x, and its label.
    least: lowest value of the vertical axis; None for that of the lines.
  """
  c = draw.Canvas(800, 390, title)
  xs = [x for line in lines for x, _ in line.points]
  ys = [y for line in lines for _, y in line.points] + [y for line in lines for _, *two in line.band for y in two]
  x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys) if least is None else least, max(ys))

  def x_at(x):
    return _LEFT + _WIDTH * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

  def y_at(y):
    return _TOP + _HEIGHT * (1 - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

  c.text(_LEFT, 28, title, anchor='start', bold=True, size=15)
  for y in y_ticks:
    c.line((_LEFT, y_at(y)), (_LEFT + _WIDTH, y_at(y)), color=draw.IDLE, width=1)
    c.text(_LEFT - 8, y_at(y) + 4, f'{y:,g}', draw.QUIET, 12, 'end')
  for x in x_ticks:
    c.text(x_at(x), _TOP + _HEIGHT + 18, f'{x:,g}', draw.QUIET, 12)
  c.line((_LEFT, _TOP + _HEIGHT), (_LEFT + _WIDTH, _TOP + _HEIGHT), color=draw.INK, width=1)
  c.text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 40, labels[0], size=12)
  c.text(_LEFT, _TOP - 8, labels[1], draw.QUIET, 12, 'start')
  if mark:
    c.line((x_at(mark[0]), _TOP), (x_at(mark[0]), _TOP + _HEIGHT), color=draw.QUIET, width=1, dash='4 3')
    c.text(x_at(mark[0]) + 4, _TOP + 12, mark[1], draw.QUIET, 11, 'start')
  for number, line in enumerate(lines):
    color = COLORS[number % len(COLORS)]
    if line.band:
      _band(c, [(x_at(x), y_at(low), y_at(high)) for x, low, high in line.band], color)
    c.line(*((x_at(x), y_at(y)) for x, y in line.points), color=color, width=2)
    c.line((_LEFT + _WIDTH + 16, _TOP + 10 + 22 * number), (_LEFT + _WIDTH + 36, _TOP + 10 + 22 * number), color=color)
    c.text(_LEFT + _WIDTH + 42, _TOP + 14 + 22 * number, line.label, anchor='start', size=12)
  return c.svg()


def _band(c, edges: Sequence[tuple[float, float, float]], color: str) -> None:
  """Shades the area between two lines."""
  around = [(x, low) for x, low, _ in edges] + [(x, high) for x, _, high in reversed(edges)]
  path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in around)
  c.parts.append(f'<polygon points="{path}" fill="{color}" opacity="0.18"/>')


def ticks(low: float, high: float) -> list[float]:
  """Returns round numbers, 4 to 9 of them, from at most `low` to at least `high`."""
  high = high if high > low else low + 1
  span = high - low
  power = 10.0 ** math.floor(math.log10(span))
  step = next(power * part for part in (0.1, 0.2, 0.5, 1, 2) if span / (power * part) <= 7)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
