"""Scores a bundle on the held-out pairs of `gather.py`, with trivial baselines: unchanged texts, and first words.

  python pretrained/score.py BUNDLE FOLDER --output=RESULT      # RESULT.json and RESULT.md

- `fix:` wrong words before and after (substituted, missing or extra, by the fewest edits to the original text), those
  that are wrong even without case and punctuation, and the share of correct words that became wrong.
- `summarize:` ROUGE-1 and ROUGE-L compared with the first words of the source (as many as score best on the validation
  split), with the 95% interval of the difference from a paired bootstrap.
- both: the loss of all target tokens and of the first one, each also with sources of other targets. The loss of a model
  that ignores its source does not change.

B batch, S source time, T target time.
"""

import argparse
import collections
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.data.objectives import append_eos, pad
from terraformer.data.scores import rouge_of_each
from terraformer.decode.bundle import Bundle, open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.stored import plain
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten
from terraformer.training.loss import model_losses

KINDS = {'fix': 'fix', 'summarize': 'description', 'summarize docstrings': 'docstring'}
LEADS = range(4, 21)  # words
RESAMPLES = 1000
ROUNDED = 64  # tokens: lengths are rounded up to multiples, so that few shapes are compiled


def read_pairs(path: Path, kind: str, most: int) -> list[dict[str, str]]:
  """Returns the first pairs of a kind; the file is shuffled."""
  with path.open(encoding='utf-8') as file:
    pairs = (json.loads(line) for line in file)
    return list(itertools.islice((pair for pair in pairs if pair['kind'] == kind), most))


# --- Losses ----------------------------------------------------------------------------------------------------------


def losses(bundle: Bundle, pairs: Sequence[dict[str, str]], batch_size: int) -> dict[str, float]:
  """Returns nats per target token, for all and for the first of each text, and both with rotated sources in a batch."""
  structure = split_module(abstract_layerwise(bundle.model))[0]
  weights = unflatten({name: jnp.asarray(plain(x), jnp.float32) for name, x in flatten(bundle.weights).items()})
  of_batch = jax.jit(lambda weights, *batch: model_losses(merge_module(structure, weights), *batch))
  sums: dict[str, float] = collections.defaultdict(float)
  for inputs_BxS, targets_BxT in _batches(bundle, pairs, batch_size):
    for name, sources_BxS in (('', inputs_BxS), (' shuffled', np.roll(inputs_BxS, 1, axis=0))):
      found = jax.device_get(of_batch(weights, sources_BxS, targets_BxT))
      sums[f'loss{name}'] += float((found['loss_BxT'] * found['mask']).sum())
      sums[f'first{name}'] += float(found['loss_BxT'][:, 0].sum())
    sums['tokens'] += float((targets_BxT != 0).sum())
    sums['texts'] += len(targets_BxT)
  return {
    'tokens': int(sums['tokens']),
    'loss': sums['loss'] / sums['tokens'],
    'loss_with_shuffled_sources': sums['loss shuffled'] / sums['tokens'],
    'first_token_loss': sums['first'] / sums['texts'],
    'first_token_loss_with_shuffled_sources': sums['first shuffled'] / sums['texts'],
  }


def _batches(bundle: Bundle, pairs: Sequence[dict[str, str]], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches of texts of similar length, padded to a multiple of `ROUNDED`."""
  names = {'inputs': bundle.inputs_length, 'targets': bundle.targets_length}
  rows = [
    {name: append_eos(np.array(bundle.tokenizer.encode(pair[name])), most) for name, most in names.items()}
    for pair in pairs
  ]
  rows.sort(key=lambda row: (len(row['inputs']), len(row['targets'])))
  for first in range(0, len(rows) - size + 1, size):
    batch = rows[first : first + size]
    longest = {name: max(len(row[name]) for row in batch) for name in names}
    rounded = {name: min(most, -(-longest[name] // ROUNDED) * ROUNDED) for name, most in names.items()}
    yield tuple(np.stack([pad(row[name], rounded[name]) for row in batch]) for name in names)


# --- Texts -----------------------------------------------------------------------------------------------------------


def write_texts(decoder: Decoder, pairs: Sequence[dict[str, str]], batch_size: int, config: DecodeConfig) -> list[str]:
  """Returns the model's output for every source; decodes sources of similar length together."""
  order = sorted(range(len(pairs)), key=lambda at: len(pairs[at]['inputs']))
  written = [''] * len(pairs)
  for first in range(0, len(order), batch_size):
    places = order[first : first + batch_size]
    for at, text in zip(places, decoder.generate_batch([pairs[at]['inputs'] for at in places], config), strict=True):
      written[at] = text
  return written


def word_errors(reference: str, text: str) -> tuple[int, set[int]]:
  """Returns the fewest words to change, insert or delete to turn a text into the reference, and the indices of the
  reference's words that are correct in the text."""
  want, have = reference.split(), text.split()
  cost = np.zeros((len(want) + 1, len(have) + 1), int)
  cost[:, 0], cost[0, :] = np.arange(len(want) + 1), np.arange(len(have) + 1)
  for i, j in itertools.product(range(1, len(want) + 1), range(1, len(have) + 1)):
    cost[i, j] = min(cost[i - 1, j - 1] + (want[i - 1] != have[j - 1]), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
  right, i, j = set(), len(want), len(have)
  while i and j:
    if want[i - 1] == have[j - 1] and cost[i, j] == cost[i - 1, j - 1]:
      i, j = i - 1, j - 1
      right.add(i)
    elif cost[i, j] == cost[i - 1, j - 1] + 1:
      i, j = i - 1, j - 1
    elif cost[i, j] == cost[i - 1, j] + 1:
      i -= 1
    else:
      j -= 1
  return int(cost[-1, -1]), right


def fix_scores(pairs: Sequence[dict[str, str]], written: Sequence[str]) -> dict[str, float]:
  """Returns totals of wrong words before and after, and of correct words made wrong; `misspelt` words are wrong even
  without case and punctuation."""
  sums: dict[str, int] = collections.Counter()
  for pair, text in zip(pairs, written, strict=True):
    source = pair['inputs'].removeprefix('fix: ')
    before, right_before = word_errors(pair['targets'], source)
    after, right_after = word_errors(pair['targets'], text)
    plain = [_plain(one) for one in (pair['targets'], source, text)]
    sums['misspelt_words_before'] += word_errors(plain[0], plain[1])[0]
    sums['misspelt_words_after'] += word_errors(plain[0], plain[2])[0]
    sums['words'] += len(pair['targets'].split())
    sums['wrong_words_before'] += before
    sums['wrong_words_after'] += after
    sums['right_words_before'] += len(right_before)
    sums['right_words_spoilt'] += len(right_before - right_after)
    sums['right_texts_before'] += source == pair['targets']
    sums['right_texts_after'] += text == pair['targets']
  return dict(sums) | {
    'texts': len(pairs),
    'wrong_after_of_before': sums['wrong_words_after'] / max(1, sums['wrong_words_before']),
    'spoilt_of_right': sums['right_words_spoilt'] / max(1, sums['right_words_before']),
  }


def _plain(text: str) -> str:
  words = (''.join(letter for letter in word if letter.isalnum()) for word in text.lower().split())
  return ' '.join(word for word in words if word)


def summary_scores(
  pairs: Sequence[dict[str, str]], written: Sequence[str], validation: Sequence[dict[str, str]]
) -> dict[str, object]:
  """Returns ROUGE of the summaries and of the best lead, and the interval of the difference."""
  best = max(LEADS, key=lambda k: _rouge(validation, leads(validation, k))['rouge1'].mean())
  of_model, of_lead = _rouge(pairs, written), _rouge(pairs, leads(pairs, best))
  rng = np.random.default_rng(0)
  draws = rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))
  result: dict[str, object] = {'texts': len(pairs), 'distinct_texts': len(set(written)), 'lead_words': best}
  for name in of_model:
    differences = (of_model[name] - of_lead[name])[draws].mean(1)
    result[name] = {
      'model': float(of_model[name].mean()),
      'lead': float(of_lead[name].mean()),
      'difference_95': [float(bound) for bound in np.quantile(differences, [0.025, 0.975])],
    }
  return result


def leads(pairs: Sequence[dict[str, str]], n_words: int) -> list[str]:
  """Returns the first words of every source."""
  return [' '.join(pair['inputs'].removeprefix('summarize: ').split()[:n_words]) for pair in pairs]


def _rouge(pairs: Sequence[dict[str, str]], texts: Sequence[str]) -> dict[str, np.ndarray]:
  scores = rouge_of_each([pair['targets'] for pair in pairs], texts)
  return {name: np.array([100 * score[name].fmeasure for score in scores]) for name in ('rouge1', 'rouge2', 'rougeL')}


# --- The result ------------------------------------------------------------------------------------------------------


def markdown(result: dict) -> str:
  """Returns the result as a Markdown page."""
  decoding = 'greedy decoding' if result['beams'] == 1 else f'{result["beams"]} beams'
  lines = [f'# {result["bundle"]} on the {result["split"]} split, {decoding}', '']
  fix = result['tasks'].get('fix', {}).get('scores')
  if fix:
    lines += [
      f'`fix:` {fix["texts"]} texts, {fix["words"]:,} words.',
      '',
      '| | before | after |',
      '|---|---|---|',
      f'| wrong words | {fix["wrong_words_before"]:,} | {fix["wrong_words_after"]:,} |',
      f'| of them without case and punctuation | {fix["misspelt_words_before"]:,} | {fix["misspelt_words_after"]:,} |',
      f'| right words spoilt | | {fix["right_words_spoilt"]:,} of {fix["right_words_before"]:,} '
      f'({100 * fix["spoilt_of_right"]:.1f}%) |',
      f'| texts without a mistake | {fix["right_texts_before"]} | {fix["right_texts_after"]} |',
      '',
    ]
  for name, task in result['tasks'].items():
    scores = task.get('scores')
    if name == 'fix' or not scores:
      continue
    lines += [
      f'`{name}`: {scores["texts"]} texts, {scores["distinct_texts"]} different ones written.',
      '',
      f'| | model | first {scores["lead_words"]} words | 95% interval of the difference |',
      '|---|---|---|---|',
    ]
    for kind in ('rouge1', 'rouge2', 'rougeL'):
      low, high = scores[kind]['difference_95']
      lines += [f'| {kind} | {scores[kind]["model"]:.1f} | {scores[kind]["lead"]:.1f} | {low:+.1f} to {high:+.1f} |']
    lines += ['']
  lines += ['| nats per token | loss | shuffled sources | first token | first, shuffled |', '|---|---|---|---|---|']
  for name, task in result['tasks'].items():
    one = task['losses']
    figures = [value for key, value in one.items() if key != 'tokens']
    lines += [f'| `{name}` | ' + ' | '.join(f'{figure:.2f}' for figure in figures) + ' |']
  lines += ['']
  for task in result['tasks'].values():
    for source, reference, text in task.get('shown', []):
      lines += ['```', source, f'-> {text}', f'   ({reference})', '```']
  return '\n'.join(lines) + '\n'


def main() -> None:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('bundle', type=Path)
  parser.add_argument('folder', type=Path)
  parser.add_argument('--output', type=Path, required=True)
  parser.add_argument('--split', choices=('validation', 'test'), default='test')
  parser.add_argument('--texts', type=int, default=1000, help='texts of each task to decode; 0 computes only losses')
  parser.add_argument('--losses', type=int, default=512, help='texts of each task for losses')
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--beams', type=int, default=4)
  parser.add_argument('--shown', type=int, default=0, help='texts of each task to show in the result; others own them')
  args = parser.parse_args()
  started, bundle = time.time(), open_bundle(args.bundle)
  decoder, config = Decoder(bundle), DecodeConfig(beams=args.beams)
  result = {'bundle': args.bundle.name, 'step': bundle.origin.get('step')}
  result |= {'split': args.split, 'beams': args.beams, 'tasks': {}}
  for name, kind in KINDS.items():
    pairs = read_pairs(args.folder / f'{args.split}.jsonl', kind, args.losses)
    task = result['tasks'][name] = {'losses': losses(bundle, pairs, min(args.batch_size, len(pairs)))}
    print(name, task['losses'], flush=True)
    pairs = read_pairs(args.folder / f'{args.split}.jsonl', kind, args.texts)
    if not pairs:  # losses alone
      continue
    written = write_texts(decoder, pairs, args.batch_size, config)
    validation = read_pairs(args.folder / 'validation.jsonl', kind, 10**9)
    task['scores'] = fix_scores(pairs, written) if kind == 'fix' else summary_scores(pairs, written, validation)
    rows = list(zip(pairs, written, strict=True))[: args.shown]
    task['shown'] = [(pair['inputs'], pair['targets'], text) for pair, text in rows]
    print(name, task['scores'], flush=True)
  result['seconds'] = round(time.time() - started)
  args.output.with_suffix('.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
  args.output.with_suffix('.md').write_text(markdown(result), encoding='utf-8')


if __name__ == '__main__':
  main()
