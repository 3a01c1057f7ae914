"""The script behind `make demo`: runs a trained model on texts of this machine, and trains a small model.

  python tools/demo.py FOLDER

A second run reuses what the first one left in FOLDER.
"""

import argparse
import collections
import itertools
import json
import random
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'pretrained'))

from terraformer import libraries  # noqa: E402

libraries.quiet()

from gather import LEAST_BODY, docstring_rows, split_of  # noqa: E402
from mistakes import spoil  # noqa: E402
from score import fix_scores, leads, write_texts  # noqa: E402

from terraformer.config import DecodeConfig, UserError  # noqa: E402
from terraformer.data.scores import rouge  # noqa: E402
from terraformer.decode.decoder import Decoder  # noqa: E402

NAME = 'technical_english'
TEXTS, SHOWN = 60, 4  # per task
SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;'()/-]{40,160}[.!]")  # or two; without code in it
DPKG = Path('/var/lib/dpkg/status')  # descriptions of the installed packages, on Debian and its derivatives
COPY = '--gin_file=gin_configs/runs/decimal_copy.gin'
_WIDTH = 100

Pair = dict[str, str]
Row = tuple[str, str, str]  # of the final table: measure, value, value to compare with


def main() -> int:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', type=Path, help='output folder')
  folder, started = parser.parse_args().folder.resolve(), time.time()
  try:
    results = fix_and_summarize()
    fix_typed_text()
    results += learn_to_copy(folder)
  except UserError as error:
    print(f'demo: {error}', file=sys.stderr)
    return 2
  except subprocess.CalledProcessError as error:  # the command printed the reason
    return error.returncode
  except KeyboardInterrupt:
    print('\ndemo: interrupted; run the same command again to resume', file=sys.stderr)
    return 130
  heading(f'summary, after {(time.time() - started) / 60:.1f} minutes')
  for what, figure, beside in results:
    print(f'{what:<56}{figure:>9}   {beside}')
  print(f'\nFor the training and the limits of the first model, see terraformer/pretrained/{NAME}.md')
  print(f'The second model is in {folder.name}/copy; {folder.name}/copy/summary.md has its curves.')
  return 0


# --- The pretrained model --------------------------------------------------------------------------------------------


def fix_and_summarize() -> list[Row]:
  """Runs the model that comes with the package on texts of this machine."""
  heading('the model that comes with the package, on texts of this machine that it was not trained on')
  decoder = Decoder.open(NAME)
  rows = held_out_rows()
  packages = sorted({row['package'] for row in rows})
  print(
    f'{NAME}: 4.4 million parameters, 10.8 MB, every layer sparse. The rule on its model card holds out\n'
    f'the texts of these {len(packages)} packages: {textwrap.shorten(", ".join(packages), 250)}'
  )
  fixes = _fixes(rows)
  fixed = write_texts(decoder, fixes, 20, DecodeConfig())
  scores = fix_scores(fixes, fixed)
  print(f'\nThe model corrects {len(fixes)} sentences with typing mistakes (`fix: `). The first ones:\n')
  spoilt = [each for each in zip(fixes, fixed, strict=True) if _source(each[0]) != each[0]['targets']]
  for pair, text in spoilt[:SHOWN]:
    show(('typed', _source(pair)), ('fixed', text), ('correct', pair['targets']))

  summaries = _summaries(rows)
  described = {f'summarize: {row["body"]}' for row in rows if row['kind'] == 'description'}
  written = write_texts(decoder, summaries, 20, DecodeConfig())
  references = [pair['targets'] for pair in summaries]
  n_descriptions = sum(pair['inputs'] in described for pair in summaries)
  print(
    f'It summarizes {n_descriptions} package descriptions, for which it was trained, and '
    f'{len(summaries) - n_descriptions} docstrings, which it summarizes poorly\n(`summarize: `). The first ones:\n'
  )
  for pair, text in list(zip(summaries, written, strict=True))[:SHOWN]:
    show(('text', textwrap.shorten(_source(pair), 240)), ('summary', text), ('its own', pair['targets']))
  model, lead = (rouge(references, texts)['rouge1'] for texts in (written, leads(summaries, 12)))
  before, after = scores['wrong_words_before'], scores['wrong_words_after']
  lost, right = scores['right_words_spoilt'], scores['right_words_before']
  return [
    (
      f'wrong words in {len(fixes)} sentences after correction',
      f'{after:,}',
      f'{before:,} before, of {scores["words"]:,}',
    ),
    ('correct words that it made wrong', f'{lost:,}', f'of {right:,}'),
    (f'ROUGE-1 of {len(summaries)} summaries', f'{model:.1f}', f"{lead:.1f} for the text's first 12 words"),
    ('different summaries among them', f'{len(set(written))}', f'of {len(written)}'),
  ]


def held_out_rows() -> list[dict[str, str]]:
  """Returns Debian package descriptions, if any, and docstrings of held-out packages, interleaved by package."""
  rows = [*_installed_descriptions(), *docstring_rows(wanted=lambda package: split_of(package) == 'test')]
  rows = list({row['body']: row for row in rows}.values())
  random.Random(0).shuffle(rows)
  return sorted(_in_turns(rows), key=lambda row: row['kind'])  # descriptions first: the model was trained on those


def _installed_descriptions() -> Iterator[dict[str, str]]:
  stanzas = DPKG.read_text(encoding='utf-8', errors='replace').split('\n\n') if DPKG.exists() else []
  for stanza in stanzas:
    name = re.search(r'^Package: (\S+)', stanza, re.M)
    found = re.search(r'^Description: (.*)\n((?: .*\n?)*)', stanza, re.M)
    if not name or not found:
      continue
    package = (re.search(r'^Source: (\S+)', stanza, re.M) or name)[1]
    body = ' '.join(re.sub(r'\n \.\n', '\n', found[2]).split())
    if split_of(package) == 'test' and len(body) >= LEAST_BODY:
      yield {'kind': 'description', 'package': package, 'body': body, 'summary': found[1]}


def _fixes(rows: Sequence[dict[str, str]]) -> list[Pair]:
  texts = [text for row in rows for text in re.split(r'(?<=[.!?])\s+(?=[A-Z])', row['body'])]
  texts = list(dict.fromkeys(text for text in texts if SENTENCE.fullmatch(text)))
  return [{'inputs': f'fix: {spoil(text, text)}', 'targets': text} for text in texts[:TEXTS]]


def _summaries(rows: Sequence[dict[str, str]]) -> list[Pair]:
  with_summary = [row for row in rows if row['summary']][:TEXTS]
  return [{'inputs': f'summarize: {row["body"]}', 'targets': row['summary']} for row in with_summary]


def _in_turns(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
  """Interleaves the rows of all packages, since some have a hundred times as many as others."""
  of_package: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
  for row in rows:
    of_package[row['package']].append(row)
  return [row for turn in itertools.zip_longest(*of_package.values()) for row in turn if row]


def _source(pair: Pair) -> str:
  """Returns the inputs of a pair without the name of the task."""
  return pair['inputs'].partition(': ')[2]


def fix_typed_text() -> None:
  """Lets the user try the model if there is a terminal."""
  heading('yours')
  print(f"$ terraformer decode --bundle={NAME} --input='fix: helo wrld, tihs is a tets.'")
  if not sys.stdin.isatty():
    print('(In a terminal, you could type your own text here.)')
    return
  decoder = Decoder.open(NAME)
  print('Type English with mistakes, or `summarize: ` and a description of software; an empty line continues.')
  while text := input('> ').strip():
    for piece in decoder.generate(text if text.startswith(('fix: ', 'summarize: ')) else f'fix: {text}'):
      print(piece, end='', flush=True)
    print()


# --- A model trained here --------------------------------------------------------------------------------------------


def learn_to_copy(folder: Path) -> list[Row]:
  """Trains a model from scratch to copy numbers, and tests it."""
  heading('a model trained from scratch to copy numbers of up to 8 digits')
  data = f"--gin_bindings=config.DataConfig.directory = '{folder / 'data'}'"
  run, bundle = folder / 'copy', folder / 'copy_bundle'
  command('train', COPY, data, f'--workdir={run}')
  evaluated = json.loads(command('evaluate', f'--workdir={run}', '--split=validation', '--json', quiet=True))
  texts = evaluated['texts']
  exact = sum(text.strip() == reference.strip() for _, reference, text in texts)
  for source, _, text in texts[:SHOWN]:
    print(f'  {source:>9} -> {text}')
  print(f'{exact} of {len(texts)} held-out numbers are copied exactly. (Short numbers also occur in training.)\n')
  command('export', f'--workdir={run}', f'--output={bundle}')
  command('decode', f'--bundle={bundle}', '--input=31415926')
  # The chance of guessing a number of n digits is one in 9 * 10**(n - 1).
  chance = sum(1 / (9 * 10**n) for n in range(8)) / 8
  share = f'{100 * exact / max(1, len(texts)):.1f}%'
  return [(f'of {len(texts)} held-out numbers copied exactly', share, f'{100 * chance:.1f}% by guessing')]


def command(*arguments: str, quiet: bool = False) -> str:
  """Prints and runs a command of the package as a user would; if `quiet`, returns its output instead of printing it.

  Raises:
    CalledProcessError: if the command fails.
  """
  shown = ' '.join(f'"{each}"' if ' ' in each else each for each in arguments)
  print(f'$ terraformer {shown.replace(f"{ROOT}/", "")}', flush=True)
  process = [sys.executable, '-m', 'terraformer', *arguments]
  done = subprocess.run(process, check=True, cwd=ROOT, stdout=subprocess.PIPE if quiet else None, text=True)
  return done.stdout or ''


# --- Terminal output -------------------------------------------------------------------------------------------------


def heading(text: str) -> None:
  """Prints a heading between two sections."""
  print(f'\n== {text} '.ljust(_WIDTH, '='), flush=True)


def show(*parts: tuple[str, str]) -> None:
  """Prints texts below each other, each after its name."""
  for name, text in parts:
    lead = f'  {name + ":":<9}'
    print(textwrap.fill(text, _WIDTH, initial_indent=lead, subsequent_indent=' ' * len(lead)))
  print()


if __name__ == '__main__':
  sys.exit(main())
