"""Gathers technical English that any machine can get from its package managers, and makes pairs for two tasks.

  python pretrained/gather.py texts FOLDER      # FOLDER/texts.jsonl, from Debian's package index and installed packages
  python pretrained/gather.py pairs FOLDER      # FOLDER/{train,validation,test}.jsonl, for `local_files`

Do not commit its output to a repository, because others own the texts. They are

- descriptions of Debian packages: `apt-get update` of the releases in `--releases` into a separate folder (about 50 MB;
  the system's lists do not change). The long description is a source, and the synopsis its summary;
- docstrings of the standard library and of the installed Python packages, as `make demo` mines them. The body is a
  source, and the first line its summary.

`summarize:` writes the summary of a source. `fix:` corrects mistakes (`mistakes.py`) in passages of one or a few
sentences of the same texts. Training has several versions of both: every version of a passage has different mistakes,
and every version of a source except the first omits some sentences or also has mistakes.

The name of the source package (for a docstring, of the top-level Python package) decides the split of a text in both
tasks. The name is in lower case without numbers, so that `gcc-12` and `gcc-13` are one: its MD5, as a number, modulo
100 is 0, 1 or 2 for test and 3 or 4 for validation. Held-out pairs come only from the first release; training texts
that equal a held-out text are omitted.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from mistakes import spoil

from terraformer.data.docstrings import mine

SPLITS = ('train', 'validation', 'test')
LEAST_BODY = 60  # characters in a description that says more than its synopsis
PASSAGE = (30, 320)  # characters
CHUNK = 2000  # texts that a process takes at a time


def split_of(package: str) -> str:
  """Returns the split of all texts of a source package."""
  family = re.sub(r'[-.]?\d+(\.\d+)*', '', package.lower()) or package
  place = int(hashlib.md5(family.encode()).hexdigest(), 16) % 100
  return 'test' if place < 3 else 'validation' if place < 5 else 'train'


# --- Texts -----------------------------------------------------------------------------------------------------------


def write_texts(folder: Path, releases: list[str], docstrings: bool) -> None:
  """Writes `texts.jsonl`: lines with `kind`, `package`, `split`, `body`, and `summary`, which may be empty."""
  rows = list(_descriptions(folder, releases))
  if docstrings:
    rows += docstring_rows()
  held_out = {row[name] for row in rows if row['split'] != 'train' for name in ('body', 'summary')}
  kept, seen = [], set()
  for row in rows:
    key = row['body'], row['summary']
    if key in seen or (row['split'] == 'train' and row['body'] in held_out):
      continue
    seen.add(key)
    kept.append(row)
  (folder / 'texts.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in kept), encoding='utf-8')
  for kind in ('description', 'docstring'):
    for split in SPLITS:
      found = [row for row in kept if (row['kind'], row['split']) == (kind, split)]
      pairs, size = sum(bool(row['summary']) for row in found), sum(len(row['body']) for row in found)
      print(f'{kind:12} {split:10} {len(found):7,} texts, {pairs:7,} pairs, {size / 1e6:6.1f} million characters')


def _descriptions(folder: Path, releases: list[str]) -> Iterator[dict[str, str]]:
  lists = folder.absolute() / 'apt'
  for number, release in enumerate(releases):
    _update(lists / release, release)
    source = {}
    for stanza in _stanzas(lists / release, '*_Packages*'):
      if name := re.search(r'^Package: (\S+)', stanza, re.M):
        source[name[1]] = (re.search(r'^Source: (\S+)', stanza, re.M) or name)[1]
    for stanza in _stanzas(lists / release, '*_Translation-en*'):
      name = re.search(r'^Package: (\S+)', stanza, re.M)
      found = re.search(r'^Description-en: (.*)\n((?: .*\n?)*)', stanza, re.M)
      if not name or not found:
        continue
      package = source.get(name[1], name[1])
      body = re.sub(r'\n\s*', ' ', re.sub(r'\n \.\n', '\n', found[2]))
      split = split_of(package)
      if len(body.strip()) >= LEAST_BODY and (split == 'train' or not number):
        yield _row('description', package, split, body, found[1])


def _update(lists: Path, release: str) -> None:
  if any(lists.glob('*_Translation-en*')):
    return
  (lists / 'partial').mkdir(parents=True, exist_ok=True)
  (lists / 'sources.list').write_text(f'deb http://deb.debian.org/debian {release} main contrib\n')
  options = {
    'Dir::Etc::sourcelist': lists / 'sources.list',
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::State::Lists': lists,
    'Acquire::Languages': 'en',
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64',
    'APT::Sandbox::User': 'root',
  }
  subprocess.run(['apt-get', *(f'-o{name}={value}' for name, value in options.items()), 'update'], check=True)


def _stanzas(lists: Path, pattern: str) -> Iterator[str]:
  for path in sorted(lists.glob(pattern)):
    # Reads any compression that apt uses.
    read = subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', path], capture_output=True, check=True)
    yield from read.stdout.decode().split('\n\n')


def docstring_rows(
  roots: list[Path] | None = None, wanted: Callable[[str], bool] = lambda package: True
) -> Iterator[dict[str, str]]:
  """Returns the rows of the docstrings under these folders; by default, of the standard library and all installed
  packages. `wanted` selects packages by their top-level names."""
  found = [one for of_split in mine(roots, wanted=wanted).splits.values() for one in of_split]
  for docstring in sorted(found, key=lambda one: (one.name, one.text)):
    body = _prose(docstring.body or docstring.text)
    if len(body) >= LEAST_BODY:
      yield _row('docstring', docstring.package, split_of(docstring.package), body, docstring.summary)


def _prose(text: str) -> str:
  """Returns the paragraphs of a docstring that are sentences, without examples, lists of arguments, or code."""
  paragraphs = [' '.join(paragraph.split()) for paragraph in re.split(r'\n\s*\n', text)]
  return ' '.join(one for one in paragraphs if re.match(r'[A-Z][^>=`|]{20,}', one) and one[-1:] in '.:!?')


def _row(kind: str, package: str, split: str, body: str, summary: str) -> dict[str, str]:
  texts = {'body': ' '.join(body.split()), 'summary': ' '.join(summary.split())}
  return {'kind': kind, 'package': package, 'split': split} | texts


# --- Pairs -----------------------------------------------------------------------------------------------------------


def write_pairs(folder: Path, summaries: int, fixes: int, processes: int) -> None:
  """Writes the pairs of both tasks for every split: the given numbers of versions in training, one in the others."""
  rows = [json.loads(line) for line in (folder / 'texts.jsonl').read_text(encoding='utf-8').split('\n') if line]
  held_out = {passage for row in rows if row['split'] != 'train' for passage in passages(row['body'])}
  with concurrent.futures.ProcessPoolExecutor(processes) as pool:
    for split in SPLITS:
      found = [row for row in rows if row['split'] == split]
      with_summary = [row for row in found if row['summary']]
      texts = sorted({passage for row in found for passage in passages(row['body'])})
      if split == 'train':
        texts = [text for text in texts if text not in held_out]
      pairs = []
      for make, given, versions in ((_summaries, with_summary, summaries), (_fixes, texts, fixes)):
        n_versions = versions if split == 'train' else 1
        jobs = [
          (given[at : at + CHUNK], version) for version in range(n_versions) for at in range(0, len(given), CHUNK)
        ]
        made = [pair for made in pool.map(make, *zip(*jobs, strict=True)) for pair in made]
        print(f'{split:10} {make.__name__[1:]:10} {len(made):9,} pairs of {len(given):9,} texts')
        pairs += made
      random.Random(0).shuffle(pairs)
      with (folder / f'{split}.jsonl').open('w', encoding='utf-8') as file:
        file.writelines(json.dumps(pair) + '\n' for pair in pairs)


def passages(body: str) -> list[str]:
  """Returns the sentences of a text as passages, some of several sentences; each sentence is in one passage."""
  rng, found, passage, most = random.Random(body), [], '', 0
  for sentence in re.split(r'(?<=[.!?:])\s+(?=[A-Z*"(])', body):
    if passage and len(passage) + 1 + len(sentence) > most:
      found.append(passage)
      passage = ''
    if not passage:
      most = rng.randint(40, PASSAGE[1])
    passage = f'{passage} {sentence}' if passage else sentence
  return [one for one in [*found, passage] if PASSAGE[0] <= len(one) <= PASSAGE[1] and _is_prose(one)]


def _is_prose(text: str) -> bool:
  return text.isascii() and sum(letter.isalpha() or letter == ' ' for letter in text) > 0.85 * len(text)


def _summaries(rows: list[dict[str, str]], version: int) -> list[dict[str, str]]:
  return [
    {'inputs': f'summarize: {_varied(row["body"], version)}', 'targets': row['summary'], 'kind': row['kind']}
    for row in rows
  ]


def _varied(body: str, version: int) -> str:
  """Returns another version of a source, with fewer sentences or with mistakes; the first version is unchanged."""
  rng = random.Random(f'{version} {body}')
  if not version:
    return body
  first, *others = re.split(r'(?<=[.!?])\s+(?=[A-Z])', body)
  shorter = ' '.join([first, *(sentence for sentence in others if rng.random() < 0.7)])
  return spoil(shorter, f'{version} {body}') if rng.random() < 0.3 else shorter


def _fixes(texts: list[str], version: int) -> list[dict[str, str]]:
  return [{'inputs': f'fix: {spoil(text, f"{version} {text}")}', 'targets': text, 'kind': 'fix'} for text in texts]


def main() -> None:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('what', choices=('texts', 'pairs'))
  parser.add_argument('folder', type=Path)
  parser.add_argument(
    '--releases', default='bookworm,trixie,sid', help='Debian releases; only texts of the first are held out'
  )
  parser.add_argument('--no-docstrings', dest='docstrings', action='store_false', help='omit Python packages')
  parser.add_argument('--summaries', type=int, default=4, help='training versions of each source to summarize')
  parser.add_argument('--fixes', type=int, default=3, help='training versions of each passage to correct')
  parser.add_argument('--processes', type=int, default=os.cpu_count())
  args = parser.parse_args()
  args.folder.mkdir(parents=True, exist_ok=True)
  if args.what == 'texts':
    write_texts(args.folder, args.releases.split(','), args.docstrings)
  else:
    write_pairs(args.folder, args.summaries, args.fixes, args.processes)


if __name__ == '__main__':
  main()
