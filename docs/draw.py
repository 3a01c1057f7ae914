"""Draws the pictures of the documentation: `python docs/draw.py` writes them to docs/pictures/.

SVG is written as text, with no library, so the files are the same on every machine; a test draws them again and
compares. Each picture has a background of its own and can be read on light and dark pages.
"""

import dataclasses
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent / 'pictures'

PAPER, INK, QUIET, IDLE = '#ffffff', '#24292f', '#6b7480', '#dde2e8'
READ, BLUE, GREEN, VIOLET = '#e8710a', '#1a66c9', '#1b8043', '#8430ce'
LIGHT_BLUE, LIGHT_GREEN, LIGHT_ORANGE = '#dbe8fa', '#d9f0e0', '#fdeddd'

# --- A canvas --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Canvas:
  """An SVG picture; sizes in pixels.

  Attributes:
    title: what the picture shows, for readers who do not see it.
  """

  width: int
  height: int
  title: str
  parts: list[str] = dataclasses.field(default_factory=list)

  def rect(self, x, y, width, height, fill=IDLE, stroke='none', radius=0, dash=''):
    """A rectangle with its upper left corner at (x, y)."""
    more = f' rx="{radius}"' if radius else ''
    more += f' stroke-dasharray="{dash}"' if dash else ''
    self.parts.append(
      f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}" '
      f'fill="{fill}" stroke="{stroke}"{more}/>'
    )

  def circle(self, x, y, radius, fill=PAPER, stroke=INK):
    """A circle around (x, y)."""
    self.parts.append(
      f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}" fill="{fill}" stroke="{stroke}"/>'
    )

  def text(self, x, y, words, color=INK, size=13, anchor='middle', bold=False):
    """A line of text on the base line y; `anchor` is start, middle or end."""
    weight = ' font-weight="600"' if bold else ''
    self.parts.append(
      f'<text x="{_number(x)}" y="{_number(y)}" fill="{color}" font-size="{size}" text-anchor="{anchor}"{weight}>'
      f'{escape(words)}</text>'
    )

  def line(self, *points, color=QUIET, width=1.5, arrow=False, dash=''):
    """A line through the points, with a head at the last one if it is an arrow."""
    path = ' '.join(f'{_number(x)},{_number(y)}' for x, y in points)
    more = f' stroke-dasharray="{dash}"' if dash else ''
    self.parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{more}/>')
    if arrow:
      self._head(points[-2], points[-1], color)

  def box(self, x, y, width, height, words, fill=LIGHT_BLUE, stroke=BLUE, size=13):
    """A named box."""
    self.rect(x, y, width, height, fill, stroke, radius=5)
    lines = words.split('\n')
    for number, line in enumerate(lines):
      self.text(x + width / 2, y + height / 2 + 5 + 16 * (number - (len(lines) - 1) / 2), line, size=size)

  def sign(self, x, y, words, color=INK):
    """An operation on a line."""
    self.circle(x, y, 10, stroke=color)
    self.text(x, y + 5, words, color, 15)

  def _head(self, behind, tip, color):
    (x0, y0), (x, y) = behind, tip
    length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
    dx, dy = (x - x0) / length, (y - y0) / length
    corners = [(x, y)] + [(x - 7 * dx - side * 4 * dy, y - 7 * dy + side * 4 * dx) for side in (1, -1)]
    path = ' '.join(f'{_number(a)},{_number(b)}' for a, b in corners)
    self.parts.append(f'<polygon points="{path}" fill="{color}"/>')

  def svg(self) -> str:
    """The file."""
    head = (
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
      f'height="{self.height}" font-family="Helvetica, Arial, sans-serif" role="img">'
    )
    paper = f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PAPER}"/>'
    return '\n'.join([head, f'<title>{escape(self.title)}</title>', paper, *self.parts, '</svg>']) + '\n'


def _number(value: float) -> str:
  return f'{value:.1f}'.removesuffix('.0')


# --- The whole -------------------------------------------------------------------------------------------------------


def overview() -> Canvas:
  """The model on the left, what a decoded token reads of it on the right."""
  c = Canvas(860, 350, 'A Terraformer, and how much of an 800-million-parameter model one decoded token reads')
  c.text(217, 32, 'causal decoder over both, reversible', bold=True)
  for x, words in ((30, 'source'), (250, 'target so far')):
    for i in range(6):
      c.rect(x + 26 * i, 296, 22, 18, LIGHT_BLUE if x == 30 else LIGHT_GREEN, BLUE if x == 30 else GREEN)
    c.text(x + 77, 333, words, QUIET)
  c.line((107, 292), (107, 272), arrow=True)
  for y, words in ((240, 'attention'), (206, 'sparse FF + SRU')):
    c.box(30, y, 154, 28, words, size=12)
  c.rect(22, 198, 170, 78, 'none', BLUE, radius=8, dash='4 3')
  c.text(258, 228, 'encoder,', bold=True)
  c.text(258, 246, 'reversible', bold=True)
  c.line((107, 198), (107, 168), arrow=True)
  c.line((327, 292), (327, 168), arrow=True)
  attention = 'attention, sparse Q K V'
  for y, words in ((128, attention), (94, attention), (60, 'sparse feed-forward + SRU')):
    c.box(30, y, 374, 28, words, fill=LIGHT_GREEN, stroke=GREEN, size=12)
  c.rect(22, 52, 390, 112, 'none', GREEN, radius=8, dash='4 3')
  c.line((412, 74), (440, 74), arrow=True)
  c.text(446, 78, 'next token', anchor='start', size=12)

  left, scale = 560, 0.32
  c.text(690, 85, 'What one decoded token reads', bold=True, size=15)
  c.text(690, 104, 'terraformer_800m.gin, millions of parameters', QUIET, 12)
  for y, words, all_of_it, read in ((130, 'everything sparse', 792, 40), (210, 'its dense twin', 792, 446)):
    c.text(left, y + 10, words, anchor='start')
    c.rect(left, y + 18, all_of_it * scale, 26, IDLE)
    c.rect(left, y + 18, read * scale, 26, READ)
    c.text(left, y + 60, f'{read} of {all_of_it}', READ, 13, 'start', bold=True)
  return c


# --- The mechanisms --------------------------------------------------------------------------------------------------

# Scores of the units of each block, as a controller may give them.
_SCORES = (
  (0.35, 0.2, 0.9, 0.4, 0.15, 0.3),
  (0.8, 0.45, 0.3, 0.1, 0.5, 0.25),
  (0.2, 0.3, 0.35, 0.25, 0.95, 0.5),
  (0.3, 0.85, 0.2, 0.55, 0.4, 0.1),
)


def sparse_ff() -> Canvas:
  """The controller's scores beside the rows of both matrices, one lit in each block."""
  c = Canvas(860, 380, 'A controller picks one unit of each block; only the weights of these units are read')
  top, unit, gap = 62, 10, 9
  rows = [(top + block * (6 * unit + gap) + i * unit, score, score == max(scores), block)
          for block, scores in enumerate(_SCORES) for i, score in enumerate(scores)]  # fmt: skip
  middle = (rows[0][0] + rows[-1][0] + unit) / 2
  for i in range(8):
    c.rect(24, middle - 56 + 14 * i, 14, 14, LIGHT_BLUE, BLUE)
  c.text(31, middle + 74, 'x', bold=True)
  c.text(31, middle + 90, 'D', QUIET, 12)
  c.line((44, middle), (76, middle), arrow=True)
  c.rect(80, middle - 56, 24, 112, LIGHT_ORANGE, READ)
  c.text(92, middle + 74, 'D x R', QUIET, 12)
  c.rect(116, middle - 12, 100, 24, LIGHT_ORANGE, READ)
  c.text(166, middle + 30, 'R x (M N)', QUIET, 12)
  c.text(148, middle - 66, 'controller, read whole', QUIET, 12)
  c.line((220, middle), (242, middle), arrow=True)

  bars, w1, relu, w2 = 250, 380, 538, 580
  for y, score, picked, _ in rows:
    c.rect(bars, y + 1, 90 * score, unit - 2, READ if picked else IDLE)
    for matrix in (w1, w2):
      c.rect(matrix, y + 1, 130, unit - 2, READ if picked else IDLE)
    if picked:
      c.line((bars + 94, y + unit / 2), (w1 - 4, y + unit / 2), color=READ, arrow=True)
      c.line((w1 + 133, y + unit / 2), (w2 - 4, y + unit / 2), color=READ)
      c.circle(relu + 7, y + unit / 2, 5, LIGHT_ORANGE, READ)
      c.line((w2 + 133, y + unit / 2), (w2 + 165, middle), color=READ)
  for y, *_, block in rows[::6]:
    c.line((bars - 6, y), (bars - 6, y + 6 * unit), color=QUIET)
    if block == 0:
      c.text(bars - 4, y - 26, 'M blocks of N units', QUIET, 12, 'start')
  for x, words in ((bars + 45, 'scores'), (w1 + 65, 'w1'), (w2 + 65, 'w2')):
    c.text(x, top - 8, words, bold=True)
  c.text(relu + 7, top - 8, 'ReLU', QUIET, 12)
  c.sign(w2 + 175, middle, '+', READ)
  c.line((w2 + 186, middle), (w2 + 212, middle), arrow=True)
  for i in range(8):
    c.rect(w2 + 216, middle - 56 + 14 * i, 14, 14, LIGHT_BLUE, BLUE)
  c.text(w2 + 223, middle + 74, 'y', bold=True)
  c.text(w2 + 223, middle + 90, 'D', QUIET, 12)
  c.text(430, 366, 'orange: read for this token; gray: not read. N = 64 at 800M: one row in 64.', QUIET)
  return c


def _gated(c: Canvas, left: float, top: float, modules: int, colors) -> float:
  """x times one gating vector a module; returns where the result ends."""
  for i in range(8):
    c.rect(left, top + 14 * i, 14, 14, LIGHT_BLUE, BLUE)
  c.text(left + 7, top + 130, 'x', bold=True)
  c.text(left + 7, top + 146, 'D', QUIET, 12)
  c.sign(left + 38, top + 56, '×')
  for s in range(modules):
    for i in range(8):
      shade = colors[s] if (3 * i + 5 * s) % 4 else PAPER
      c.rect(left + 62 + 22 * s, top + 14 * i, 14, 14, shade, colors[s])
  c.text(left + 58 + 11 * modules, top - 10, 'gating', bold=True)
  c.text(left + 58 + 11 * modules, top + 130, 'S x D', QUIET, 12)
  return left + 62 + 22 * modules


_MODULES = (BLUE, GREEN, VIOLET, READ)


def sparse_qkv() -> Canvas:
  """The multiplicative dense layer on the left, what the convolutions see on the right."""
  c = Canvas(860, 330, 'One shared multiplicative layer, then a small convolution each for queries, keys and values')
  end = _gated(c, 30, 90, 4, _MODULES)
  c.line((end + 2, 146), (end + 26, 146), arrow=True)
  c.rect(end + 32, 90, 44, 112, LIGHT_ORANGE, READ)
  c.text(end + 54, 80, 'projection', bold=True)
  c.text(end + 54, 220, 'D x W', QUIET, 12)
  c.text(end + 54, 236, 'shared', QUIET, 12)
  c.line((end + 82, 146), (end + 124, 146), arrow=True)
  for s, color in enumerate(_MODULES):
    c.rect(end + 130, 90 + 28 * s, 26, 26, PAPER, color, radius=2)
  c.text(end + 143, 80, 'modules', bold=True)
  c.text(end + 143, 220, 'S of W = D/S', QUIET, 12)
  c.line((end + 163, 146), (end + 205, 146), arrow=True)

  for left, words, seen, note in (
    (480, 'queries, keys', 1, 'a kernel of 3 positions x 3 modules'),
    (685, 'values', 0, '3 positions x 1 module'),
  ):
    c.text(left + 70, 60, words, bold=True)
    for t in range(6):
      for s in range(5):
        lit = 2 <= t <= 4 and abs(s - 2) <= seen
        c.rect(left + 28 * s, 72 + 26 * t, 24, 22, READ if lit else IDLE)
    c.rect(left + 56 - 2, 72 + 26 * 4 - 2, 28, 26, 'none', INK)
    c.text(left + 70, 246, 'modules', QUIET, 12)
    c.text(left + 70, 268, note, QUIET, 12)
  c.line((470, 72), (470, 226), arrow=True)
  c.text(464, 246, 'time', QUIET, 12)
  c.text(430, 312, 'framed: the output; orange: what it sees. One kernel serves all modules.', QUIET)
  return c


def sparse_output() -> Canvas:
  """The vocabulary in pieces that share one matrix."""
  c = Canvas(860, 300, 'The output layer: one matrix serves all pieces of the vocabulary')
  end = _gated(c, 30, 80, 4, _MODULES)
  for s, color in enumerate(_MODULES):
    y = 66 + 40 * s
    c.line((end + 4, 136), (end + 50, y + 14), color=color, arrow=True)
    c.rect(end + 56, y, 90, 28, LIGHT_ORANGE, READ)
    c.line((end + 150, y + 14), (end + 186, y + 14), color=color, arrow=True)
    for i in range(10):
      c.rect(end + 192 + 18 * i, y + 4, 16, 20, PAPER, color)
  c.text(end + 101, 54, 'one projection', bold=True)
  c.text(end + 101, 244, 'W x D', QUIET, 12)
  c.text(end + 282, 54, 'logits', bold=True)
  c.text(end + 282, 244, 'S pieces of W = V/S', QUIET, 12)
  left = end + 420
  c.text(left, 92, 'D = 1,024, V = 32,000, S = 4', anchor='start')
  for y, words, million, color in ((116, 'sparse', 8.2, READ), (176, 'dense', 32.8, QUIET)):
    c.text(left, y + 8, f'{words}: {million} million', anchor='start')
    c.rect(left, y + 14, million * 6, 20, color)
  c.text(430, 284, 'The same matrix is multiplied by S gated copies of x, so it is read from memory once.', QUIET)
  return c


def reversible() -> Canvas:
  """Two streams forwards and backwards, and what each kind of stack keeps."""
  c = Canvas(860, 400, 'Two residual streams: the backward pass subtracts what the forward pass added')
  for top, words, sign, to_right in ((56, 'forwards', '+', True), (206, 'backwards', '−', False)):
    c.text(24, top - 18, words, anchor='start', bold=True)
    a, b = top + 14, top + 84
    for y, color in ((a, BLUE), (b, GREEN)):
      c.line(*((60, y), (560, y))[:: 1 if to_right else -1], color=color, width=3, arrow=True)
    for x, out, name in ((150, True, 'attention'), (370, False, 'feed-forward')):
      source, target = (b, a) if out else (a, b)
      c.line((x, source), (x, (a + b) / 2), color=QUIET)
      c.line((x, (a + b) / 2), (x + 90, (a + b) / 2), (x + 90, target + (12 if out else -12)), arrow=True)
      c.box(x - 24, (a + b) / 2 - 14, 96, 28, name, LIGHT_ORANGE, READ, 12)
      c.sign(x + 90, target, sign)
    for y, letter in ((a, 'a'), (b, 'b')):
      c.text(40, y + 5, letter, bold=True)
      c.text(582, y + 5, f'{letter}′', bold=True)
  c.text(310, 336, 'a′ = a + attention(b)', QUIET)
  c.text(310, 354, 'b′ = b + feed-forward(a′)', QUIET)
  c.text(310, 382, 'b = b′ − feed-forward(a′), then a = a′ − attention(b): nothing else had to be stored.', QUIET)
  c.text(730, 38, 'activations kept', bold=True)
  for left, words, kept in ((655, 'plain', range(8)), (765, 'reversible', (0,))):
    for layer in range(8):
      c.rect(left, 56 + 30 * layer, 76, 24, READ if layer in kept else IDLE, radius=3)
    c.text(left + 38, 316, words)
  c.line((645, 292), (645, 58), arrow=True)
  c.text(640, 180, 'layers', QUIET, 12, 'end')
  return c


_BUCKETS = (2, 0, 1, 2, 3, 0, 1, 0, 2, 3, 1, 2, 0, 3, 1, 0)  # of 16 positions, by a hash of their queries
_COLORS = (BLUE, GREEN, VIOLET, READ)


def lsh() -> Canvas:
  """Positions by time, sorted by bucket and cut into chunks; and which keys each query sees."""
  c = Canvas(860, 380, 'LSH attention sorts positions by bucket and attends within neighbouring chunks')
  cell, left = 28, 30
  order = sorted(range(16), key=lambda position: (_BUCKETS[position], position))
  rank = {position: number for number, position in enumerate(order)}
  c.text(left, 50, '1. Hash each query: nearby vectors share a bucket (a color).', anchor='start')
  c.text(left, 224, '2. Sort by bucket, then by position, and cut into chunks.', anchor='start')
  at = lambda number: left + cell * number + 10 * (number // 4)  # noqa: E731
  for position, bucket in enumerate(_BUCKETS):
    c.line((left + cell * position + 16, 88), (at(rank[position]) + 13, 170), color=_COLORS[bucket], width=1)
  for position, bucket in enumerate(_BUCKETS):
    c.rect(left + cell * position + 3, 60, 26, 26, _COLORS[bucket], radius=3)
    c.text(left + cell * position + 16, 78, str(position), PAPER, 12)
    c.rect(at(rank[position]), 172, 26, 26, _COLORS[bucket], radius=3)
    c.text(at(rank[position]) + 13, 190, str(position), PAPER, 12)
  for chunk in range(4):
    c.rect(at(4 * chunk) - 3, 168, 4 * cell + 4, 34, 'none', INK, radius=4)
  c.text(left, 252, '3. A query sees its own chunk and the one before it.', anchor='start')
  for chunk in range(4):
    middle = at(4 * chunk) + 2 * cell
    c.rect(at(4 * chunk) - 3, 288, 4 * cell + 4, 24, LIGHT_BLUE, BLUE, radius=4)
    c.text(middle, 305, f'chunk {chunk}', size=12)
    c.line((middle, 288), (middle, 270), (middle + 30, 270), (middle + 30, 285), arrow=True)
    if chunk:
      c.line((middle - 30, 312), (middle - 30, 332), (at(4 * chunk - 4) + 2 * cell, 332),
             (at(4 * chunk - 4) + 2 * cell, 315), arrow=True)  # fmt: skip
  c.text(left, 362, 'Several rounds with other hashes make one softmax.', QUIET, anchor='start')

  grid, size = 580, 15
  c.text(grid + 8 * size, 50, 'keys that a query sees, causal', bold=True)
  for query in range(16):
    for key in range(query + 1):
      near = rank[query] // 4 - rank[key] // 4 in (0, 1)
      color = INK if key == query else _COLORS[_BUCKETS[query]] if near else IDLE
      c.rect(grid + size * key, 62 + size * query, size - 1, size - 1, color)
  c.text(grid + 8 * size, 322, 'key', QUIET, 12)
  c.text(grid - 8, 62 + 8 * size, 'query', QUIET, 12, 'end')
  c.text(grid + 8 * size, 344, 'black: itself, the last resort; gray: not computed', QUIET, 12)
  return c


def sru() -> Canvas:
  """The branch beside the feed-forward block, and the recurrence along time."""
  c = Canvas(860, 340, 'The SRU: a small elementwise recurrence along time, beside the feed-forward block')
  c.text(24, 38, 'a branch of the feed-forward sublayer', anchor='start', bold=True)
  names = ('norm', 'D to W', 'SRU', 'W to D')
  for x, words in zip((70, 150, 230, 310), names, strict=True):
    c.box(x, 60, 62, 30, words, LIGHT_ORANGE if words == 'SRU' else LIGHT_BLUE, READ if words == 'SRU' else BLUE, 12)
  c.text(30, 80, 'x', bold=True)
  for x in (40, 134, 214, 294):
    c.line((x, 75), (x + (28 if x == 40 else 14), 75), arrow=True)
  c.box(70, 104, 302, 28, 'norm, sparse feed-forward', LIGHT_GREEN, GREEN, 12)
  c.line((50, 75), (50, 118), (68, 118), arrow=True)
  c.line((374, 75), (410, 75), (410, 86), arrow=True)
  c.line((374, 118), (410, 118), (410, 108), arrow=True)
  c.sign(410, 97, '+')
  c.line((421, 97), (446, 97), arrow=True)
  c.text(480, 80, 'W is 32 in the 800M model: the branch costs little,', QUIET, 12, 'start')
  c.text(480, 98, 'and it carries information along time.', QUIET, 12, 'start')
  c.text(480, 116, 'It runs from left to right, in the encoder as well.', QUIET, 12, 'start')

  c.text(24, 172, 'one step', anchor='start', bold=True)
  y = 220
  c.text(40, y - 14, 'c before', QUIET, 12)
  c.line((24, y), (760, y), color=READ, width=3, arrow=True)
  c.text(805, y + 5, 'c after', READ, 13, bold=True)
  c.sign(200, y, '×', READ)
  c.sign(400, y, '+', READ)
  c.line((200, 288), (200, y + 12), arrow=True)
  c.text(200, 304, 'f, forget gate', size=12)
  c.line((400, 288), (400, y + 12), arrow=True)
  c.text(400, 304, '(1 − f) u, the update', size=12)
  c.line((560, y), (560, 270), arrow=True)
  c.text(604, 291, 'h = r c + (1 − r) x √3', anchor='start')
  c.box(530, 272, 60, 28, 'read', LIGHT_ORANGE, READ, 12)
  c.text(604, 309, 'r, reset gate', QUIET, 12, 'start')
  c.text(430, 330, 'f, r and u come from one dense layer of x; everything along time is elementwise.', QUIET)
  return c


PICTURES = (overview, sparse_ff, sparse_qkv, sparse_output, reversible, lsh, sru)


def main() -> None:
  """Writes all pictures."""
  FOLDER.mkdir(exist_ok=True)
  for picture in PICTURES:
    (FOLDER / f'{picture.__name__}.svg').write_text(picture().svg(), encoding='utf-8')


if __name__ == '__main__':
  main()
