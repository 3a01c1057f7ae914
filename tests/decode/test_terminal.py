"""What the command that decodes says about its texts."""

import json

import pytest

from terraformer.cli import main
from terraformer.decode.decoder import Decoder, Stats

SHORT, LONG = 'Red tree.', 'Blue road cloud ' * 20


@pytest.mark.parametrize('batch_size', [1, 2, 3])
@pytest.mark.parametrize('flags', [[], ['--beams=2']], ids=str)
def test_texts_of_a_batch_are_told_of_one_by_one(bundle, tmp_path, capsys, batch_size, flags):
  texts = [SHORT, LONG, SHORT, LONG]
  (tmp_path / 'texts.jsonl').write_text('\n'.join(json.dumps({'inputs': text}) for text in texts))
  arguments = [f'--input_file={tmp_path / "texts.jsonl"}', f'--batch_size={batch_size}', '--max_tokens=3', '--json']
  assert main(['decode', f'--bundle={bundle}', *arguments, *flags]) == 0
  said = capsys.readouterr()
  rows = [json.loads(line)['stats'] for line in said.out.splitlines()]
  assert [row['input_tokens'] for row in rows] == [rows[0]['input_tokens'], 12] * 2
  assert [row['dropped_tokens'] for row in rows] == [0, rows[1]['dropped_tokens']] * 2
  words = f'the last {rows[1]["dropped_tokens"]} tokens of the input were not read; the model was trained on at most 12'
  name = '' if batch_size == 1 else 'text {}: '
  assert said.err.splitlines() == [f'note: {name.format(number)}{words}' for number in (2, 4)]


@pytest.mark.parametrize(
  ('flags', 'notes'),
  [
    (
      ['--top_k=3', '--seed=4'],
      ['--top_k has no effect at temperature 0; set --temperature', '--seed has no effect at'],
    ),
    (['--top_p=0.5', '--temperature=1'], []),
    (['--length_penalty=1'], ['--length_penalty has no effect without beam search; set --beams']),
    (['--length_penalty=1', '--beams=2'], []),
  ],
)
def test_a_setting_without_effect_is_told_of(bundle, capsys, flags, notes):
  assert main(['decode', f'--bundle={bundle}', f'--input={SHORT}', '--max_tokens=1', *flags]) == 0
  said = capsys.readouterr().err.splitlines()
  assert [line.startswith(f'note: {note}') for line, note in zip(said, notes, strict=True)] == [True] * len(notes)


def test_more_tokens_than_there_are_positions_for_are_told_of_once(bundle, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(Decoder, 'generate_batch', ended_at_once)
  (tmp_path / 'texts.jsonl').write_text('\n'.join(json.dumps({'inputs': text}) for text in (SHORT, SHORT)))
  assert main(['decode', f'--bundle={bundle}', f'--input_file={tmp_path}/texts.jsonl', '--batch_size=2', MANY]) == 0
  assert capsys.readouterr().err == 'note: the model has positions for 16 new tokens, fewer than 100\n'


MANY = '--max_tokens=100'


def ended_at_once(decoder, texts, config):
  decoder.stats, decoder.text_stats = Stats(room=16, tokens=1), [Stats(room=16, tokens=1) for _ in texts]
  return [''] * len(texts)


def test_a_text_that_the_positions_cut_short_is_told_of(bundle, tmp_path, capsys):
  (tmp_path / 'texts.jsonl').write_text('\n'.join(json.dumps({'inputs': text}) for text in (SHORT, SHORT)))
  arguments = [f'--input_file={tmp_path / "texts.jsonl"}', '--batch_size=2', '--max_tokens=100', '--temperature=9']
  assert main(['decode', f'--bundle={bundle}', *arguments]) == 0
  words = 'the text ends after 16 tokens; the model has no more positions'
  assert capsys.readouterr().err.splitlines() == [f'note: text {number}: {words}' for number in (1, 2)]
