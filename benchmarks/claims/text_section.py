"""Figure 1 of the paper, sparse layers beside dense ones with as many parameters, and what else is seen in losses."""

from benchmarks.claims.losses import beside, loss_chart, loss_table
from benchmarks.claims.results import Results
from benchmarks.claims.section import Section, nats

_LAYERS = {
  'dense': 'dense',
  'ff': 'sparse FF',
  'qkv': 'sparse QKV',
  'ff_qkv': 'sparse FF + QKV',
  'ff_qkv_output': 'sparse FF + QKV + output',
  'switch': 'mixture of experts',
}
_ABLATIONS = {
  'ff': 'as above',
  'block_4': '4 units per block',
  'block_8': '8 units per block',
  'block_32': '32 units per block',
  'block_64': '64 units per block',
  'rank_8': 'rank 8',
  'rank_64': 'rank 64',
  'hard_0': 'never a hard choice in training',
  'hard_100': 'only hard choices',
  'temperature_0': 'temperature 0',
  'temperature_1': 'temperature 1',
}
_ROUNDS = ((1, 64), (2, 64), (4, 64), (8, 64), (2, 32), (2, 128))
_LONG = {'full': 'full attention'} | {
  f'rounds_{rounds}_chunk_{chunk}': f'{rounds} round{"s" * (rounds > 1)}, chunks of {chunk}'
  for rounds, chunk in _ROUNDS
}
_PAIRS = {
  'terraformer': 'Terraformer',
  'encoder_decoder': 'encoder-decoder',
  'encoder_decoder_longer': 'encoder-decoder, 2.8 times the steps',
}
_WANTED = 0.03  # nats between dense and sparse FF + QKV


def figure_1(results: Results) -> Section | None:
  """Returns the section on sparse layers at equal parameters, at two sizes."""
  small, larger = _named('text', _LAYERS), _named('larger_text', _LAYERS)
  if not results.seeds('text-dense'):
    return None
  body = f"""Language models of 4 layers of width 128 read windows of 128 tokens of docstrings, with a plain residual
stream and no SRU, as in the paper's section 3; `--only='text-*'`. All have as many parameters as the dense model,
within 1%: what sparse QKV save goes into `d_ff`. Runs of one seed read the same batches, and the last column is the
mean of their differences. The loss is that of validation, in nats per token.

{loss_table(results, small, 'text-dense', 'layers')}
![validation loss by step](pictures/figure_1.svg)
"""
  if results.seeds('larger_text-dense'):
    larger_table = loss_table(results, larger, 'larger_text-dense', 'layers')
    body += f"\nThe same with 6 layers of width 256; `--only='larger_text-*'`:\n\n{larger_table}"
  return Section(
    'Sparse layers at equal parameters',
    'Sparse FF and QKV layers reach the loss of dense ones with as many parameters; mixtures of experts do not',
    _verdict(results),
    body,
    {'figure_1.svg': loss_chart(results, small, 'Sparse layers at equal parameters')},
  )


def ablations(results: Results) -> Section | None:
  """Returns the section on the settings of sparse feed-forward layers."""
  names = results.variants(_named('text', _ABLATIONS))
  if len(names) < 2 or 'text-ff' not in names:
    return None
  found = {name: beside(results, name, 'text-ff') for name in names if name != 'text-ff'}
  there = {name: one.value for name, one in found.items() if one}
  best, worst = min(there, key=there.__getitem__), max(there, key=there.__getitem__)
  body = f"""The model with sparse FF of the section above has 16 units per block, a controller of rank 32, 30% hard
choices and temperature 0.1. Each row changes one of them, and `d_ff` so that the parameters stay equal; one seed.

{loss_table(results, names, 'text-ff', 'sparse FF')}"""
  verdict = f'best: {names[best]}, {there[best]:+.3f} nats; worst: {names[worst]}, {there[worst]:+.3f}'
  return Section('Settings of sparse FF', 'Settings of the controller and of training', verdict, body, {})


def long_text(results: Results) -> Section | None:
  """Returns the section on LSH attention at 2,048 tokens."""
  names = results.variants(_named('long', _LONG))
  if len(names) < 2 or 'long-full' not in names:
    return None
  found = {label: beside(results, name, 'long-full') for name, label in names.items() if name != 'long-full'}
  verdict = '; '.join(f'{label} {one.value:+.3f} nats' for label, one in found.items() if one)
  body = f"""Language models of 2 layers of width 128 read windows of 2,048 tokens; a document is the docstrings of a
module. Queries and keys are shared in all of them; only which keys a query sees differs; `--only='long-*'`.

{loss_table(results, names, 'long-full', 'attention')}
![validation loss by step](pictures/long_text.svg)
"""
  chart = loss_chart(results, names, 'LSH attention at 2,048 tokens')
  claim = 'LSH attention with a few rounds learns what full attention learns'
  return Section(
    'LSH attention at 2,048 tokens', claim, f'{verdict}, beside full attention', body, {'long_text.svg': chart}
  )


def pairs(results: Results) -> Section | None:
  """Returns the section on Terraformer beside an encoder-decoder."""
  names = results.variants(_named('pairs', _PAIRS))
  if len(names) < 2 or 'pairs-terraformer' not in names:
    return None
  found = {label: beside(results, name, 'pairs-terraformer') for name, label in names.items()}
  verdict = '; '.join(
    f'{label} {one.value:+.3f} nats' for label, one in found.items() if one and label != 'Terraformer'
  )
  body = f"""The all-sparse Terraformer of the demo and a dense encoder-decoder with `d_ff` 512 write the first line of
a docstring from its body; `--only='pairs-*'`.

{loss_table(results, names, 'pairs-terraformer', 'model')}
![validation loss by step](pictures/pairs.svg)
"""
  chart = loss_chart(results, names, 'First lines of docstrings from their bodies')
  claim = 'A Terraformer learns as an encoder-decoder does'
  return Section('Terraformer and encoder-decoder', claim, f'{verdict}, beside Terraformer', body, {'pairs.svg': chart})


def _named(family: str, labels: dict[str, str]) -> dict[str, str]:
  return {f'{family}-{name}': label for name, label in labels.items()}


def _verdict(results: Results) -> str:
  """Returns the difference at the larger size, or at the smaller one as long as that is missing."""
  family = 'text' if beside(results, 'larger_text-ff_qkv', 'larger_text-dense') is None else 'larger_text'
  difference = beside(results, f'{family}-ff_qkv', f'{family}-dense')
  if difference is None:
    return 'open'
  low, high = (difference.value + side * (difference.margin or 0) for side in (-1, 1))
  holds = 'holds' if high <= _WANTED else 'does not hold at this size' if low > _WANTED else 'undecided'
  experts = beside(results, 'text-switch', 'text-dense')
  others = [f'mixture of experts {nats(experts, "+")} at the smaller size'] if experts else []
  found = ', '.join([f'sparse FF + QKV {nats(difference, "+")} nats', *others])
  size = {'text': 'smaller', 'larger_text': 'larger'}[family]
  return f'{found} beside dense ({size} size, seeds: {difference.n}): {holds} (expected at most +{_WANTED})'
