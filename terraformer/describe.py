"""Describes a model and its dense twin as a table: their parts, and what one decoded token reads of each."""

import dataclasses
import json
from collections.abc import Iterator

from terraformer.config import ModelConfig
from terraformer.models.cost import Cost, GroupCost, cost
from terraformer.models.twin import dense_twin

_NONE = GroupCost(0, 0)
# The usual d_ff is 4 times d_model; a twin with less than d_model divided by this is no model that anyone would train.
_WIDEST_DEGENERATE = 8


def as_json(config: ModelConfig, context: int) -> str:
  """Returns a JSON object of `model` and `twin`, each with `parts`, `parameters`, `read`, `cache_numbers` and `flops`.

  Raises:
    UserError: if the model has fewer positions than `context`.
  """
  config.check_context(context)
  costs = {'model': cost(config, context), 'twin': cost(dense_twin(config), context)}
  return json.dumps({name: dataclasses.asdict(one) | _totals(one) for name, one in costs.items()})


def _totals(one: Cost) -> dict[str, int]:
  return {'parameters': one.parameters, 'read': one.read, 'read_bytes': 4 * (one.read + one.cache_numbers)}


def as_table(config: ModelConfig, context: int) -> str:
  """Returns the same as text, with counts in millions of float32 numbers; raises the same errors as `as_json`."""
  config.check_context(context)
  twin = dense_twin(config)
  ours, dense = cost(config, context), cost(twin, context)
  d_ff = ' and '.join(sorted({f'{block.feed_forward.d_ff:,}' for block in twin.blocks.values()}))
  names = sorted({*ours.parts, *dense.parts}, key=_order)
  lines = [
    f'{type(config).__name__.removesuffix("Config")} and its dense twin (d_ff {d_ff}); millions of parameters',
    '',
    f'{"":32}{"model":>12}{"share":>8}{"read per token":>16}{"twin":>12}{"share":>8}{"read per token":>16}',
  ]
  for name in names:
    lines.append(_row(name, (ours.parts.get(name, _NONE), ours), (dense.parts.get(name, _NONE), dense)))
  total = GroupCost(ours.parameters, ours.read), GroupCost(dense.parameters, dense.read)
  lines += ['-' * 104, _row('all', (total[0], ours), (total[1], dense)), '']
  lines += [
    _pair(f'KV cache at {context:,} tokens, MB', ours.cache_numbers * 4 / 1e6, dense.cache_numbers * 4 / 1e6),
    _pair('bytes read per token, float32, MB', *((one.read + one.cache_numbers) * 4 / 1e6 for one in (ours, dense))),
    _pair('operations per token, MFLOP', ours.flops / 1e6, dense.flops / 1e6),
    _pair('all weights in float32, GB', ours.parameters * 4 / 1e9, dense.parameters * 4 / 1e9),
    '',
    f'A decoded token reads {_fewer(ours.read + ours.cache_numbers, dense.read + dense.cache_numbers)} bytes and '
    f'takes {_fewer(ours.flops, dense.flops)} operations than with the twin.',
    *_degenerate(twin),
  ]
  return '\n'.join(lines)


def _degenerate(twin: ModelConfig) -> Iterator[str]:
  """Yields a line if the twin's dense layers leave almost no parameters for its feed-forward blocks."""
  if any(block.feed_forward.d_ff * _WIDEST_DEGENERATE < block.d_model for block in twin.blocks.values()):
    yield (
      'This twin is degenerate: its dense projections and output layer take so many parameters that its feed-forward '
      'blocks have almost none. Compare larger models.'
    )


def _order(name: str) -> tuple[int, int]:
  """Returns a sort key that orders stacks and parts as a token passes through them."""
  stacks = ('embedding', 'positions', 'encoder', 'merging', 'decoder', 'normalization', 'output')
  parts = ('positions', 'QKV', 'attention output', 'controller', 'feed-forward', 'recurrence', 'merging', 'normal')
  stack = next((index for index, start in enumerate(stacks) if name.startswith(start)), len(stacks))
  return stack, next((index for index, part in enumerate(parts) if part in name), len(parts))


def _row(name: str, *columns: tuple[GroupCost, Cost]) -> str:
  cells = (
    f'{part.parameters / 1e6:12,.3f}{part.parameters / of.parameters:8.1%}{part.read / 1e6:16,.3f}'
    for part, of in columns
  )
  return f'{name:32}' + ''.join(cells)


def _pair(name: str, ours: float, dense: float) -> str:
  return f'{name:42}{ours:12,.1f} {"twin":>19}{dense:13,.1f}'


def _fewer(ours: int, twins: int) -> str:
  return f'{twins / max(ours, 1):.1f} times fewer' if ours <= twins else f'{ours / max(twins, 1):.1f} times more'
