"""A language model without sources goes on from its prompt: what it writes is what the model predicts behind it."""

import functools
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.cli import main
from terraformer.config import DecodeConfig, UserError
from terraformer.decode import stepping
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Decoder
from terraformer.models.generate import mask_reserved_ids
from terraformer.models.make import layerwise
from terraformer.models.parameters import split_module
from tests.models.examples import LANGUAGE_MODELS, model

TRAINED, POSITIONS = 12, 16
# A digit is a token.
DIGITS = types.SimpleNamespace(encode=lambda text: [int(digit) + 5 for digit in text], size=20)
TEXTS = ['31415', '', '2', '271828']


def make_decoder(name):
  weights = jax.tree.map(np.asarray, split_module(layerwise(model(LANGUAGE_MODELS[name])))[1])
  return Decoder(Bundle(LANGUAGE_MODELS[name], weights, DIGITS, inputs_length=0, targets_length=TRAINED, origin={}))


@pytest.fixture(scope='module')
def decoder():
  return make_decoder('language')


def teacher_forced(name, text, n_tokens):
  """The likeliest next token, again and again, each by the model's pass over all positions."""
  logits_of = jax.jit(lambda model, targets: model(jnp.zeros((1, 0), jnp.int32), targets))
  ids, written = DIGITS.encode(text), []
  while len(written) < n_tokens and 1 not in written:
    known = [*ids, *written]
    # The next token is not known; any other than padding stands for it, and nothing before it sees it.
    targets_1xT = np.array([[*known, 2] + [0] * (POSITIONS - 1 - len(known))], np.int32)
    logits_1xV = logits_of(model(LANGUAGE_MODELS[name]), targets_1xT)[:, len(known)]
    written.append(int(mask_reserved_ids(logits_1xV, DIGITS.size).argmax()))
  return [token for token in written if token != 1]


@pytest.mark.parametrize('name', LANGUAGE_MODELS)
def test_greedy_tokens_are_the_teacher_forced_ones_alone_and_in_a_batch(name, monkeypatch):
  monkeypatch.setattr(stepping, 'FIRST_ROOM', 2)
  decoder = make_decoder(name)
  expected = [teacher_forced(name, text, TRAINED - len(text)) for text in TEXTS]
  assert [list(decoder.tokens(text)) for text in TEXTS] == expected
  rows = np.array(list(decoder._token_rows(TEXTS, DecodeConfig()))).T.tolist()
  assert [row[: len(tokens)] for row, tokens in zip(rows, expected, strict=True)] == expected


def test_prompt_and_continuation_share_the_length_that_was_trained(decoder):
  for text in TEXTS:
    written = list(decoder.tokens(text))
    assert decoder.stats.input_tokens == len(text) and decoder.stats.room == TRAINED - len(text)
    assert len(written) == decoder.stats.room or decoder.stats.tokens == len(written) + 1


@pytest.mark.parametrize(('max_tokens', 'kept'), [(None, 6), (3, 9), (6, 6), (12, 6), (1000, 6), (0, 12)])
def test_of_a_long_prompt_the_last_tokens_are_kept(decoder, max_tokens, kept):
  text, config = '31415926535897', DecodeConfig(max_tokens=max_tokens)
  written = list(decoder.tokens(text, config))
  assert (decoder.stats.input_tokens, decoder.stats.dropped_tokens) == (kept, len(text) - kept)
  assert list(decoder.tokens(text[-kept:], config)) == written


def test_a_text_ends_with_the_positions_of_the_model_at_the_latest(decoder):
  config = DecodeConfig(max_tokens=1000, temperature=3.0, seed=4)
  for text in TEXTS:
    written = list(decoder.tokens(text, config))
    assert decoder.stats.room == POSITIONS - len(text)
    assert len(written) <= decoder.stats.room


@pytest.mark.parametrize(
  'config',
  [
    DecodeConfig(),
    DecodeConfig(max_tokens=1000),
    DecodeConfig(temperature=2.0, top_k=8, seed=3),
    DecodeConfig(no_repeat_ngram=1),
    DecodeConfig(beams=3),
  ],
  ids=repr,
)
def test_a_batch_and_its_statistics_are_those_of_its_texts_alone(decoder, monkeypatch, config):
  monkeypatch.setattr(decoder, '_pieces', lambda text, tokens: (f'{token} ' for token in tokens if token != 1))
  alone, counts = [], []
  for text in TEXTS:
    alone.append(''.join(decoder.generate(text, config)))
    counts.append((decoder.stats.input_tokens, decoder.stats.room))
  assert decoder.generate_batch(TEXTS, config) == alone
  assert [(stats.input_tokens, stats.room) for stats in decoder.text_stats] == counts
  assert decoder.stats.input_tokens == sum(map(len, TEXTS))
  assert decoder.stats.tokens == sum(stats.tokens for stats in decoder.text_stats)


def test_one_beam_is_greedy_decoding(decoder):
  for text in TEXTS:
    assert list(decoder._search(text, DecodeConfig())) == list(decoder.tokens(text))


@pytest.mark.parametrize(('text', 'problem'), [(b'123', 'bytes'), (None, 'NoneType'), ('a\ud800', 'a lone surrogate')])
def test_what_is_no_text_is_refused(decoder, text, problem):
  with pytest.raises(UserError, match=f'expected text, found {problem}'):
    next(decoder.tokens(text))


# --- A run of its own ------------------------------------------------------------------------------------------------

GIN = """
from __gin__ import dynamic_registration
from terraformer import config

config.RunConfig.model = @config.LanguageModelConfig()
config.LanguageModelConfig.vocab_size = 452
config.LanguageModelConfig.max_length = 24
config.LanguageModelConfig.n_layers = 1
config.LanguageModelConfig.residual = @config.PlainResidualConfig()
config.BlockConfig.d_model = 16
config.BlockConfig.n_heads = 2
config.BlockConfig.projection = @config.DenseProjectionConfig()
config.BlockConfig.feed_forward = @config.DenseFFConfig()
config.BlockConfig.recurrence = None
config.DenseFFConfig.d_ff = 32
config.DataConfig.source = @config.SeqioTaskConfig()
config.SeqioTaskConfig.name = 'text'
config.DataConfig.objective = @config.LMConfig()
config.DataConfig.inputs_length = 0
config.DataConfig.targets_length = 24
config.TrainConfig.steps = 2
config.TrainConfig.batch_size = 4
config.TrainConfig.eval_every = 0
config.TrainConfig.sample_every = 2
"""


@pytest.fixture(scope='module')
def language_run(fake_prepared, made_once):
  """The folder of a run of a language model, with its bundle."""
  from terraformer.config import LMConfig

  def make(path):
    lengths = {'inputs_length': 0, 'targets_length': 24}
    fake_prepared('text', has_inputs=False, directory=str(path / 'data'), objective=LMConfig(), **lengths)
    (path / 'run.gin').write_text(f"{GIN}\nconfig.DataConfig.directory = '{path / 'data'}'\n")
    assert main(['train', f'--workdir={path / "run"}', f'--gin_file={path / "run.gin"}', '--quiet']) == 0
    assert main(['export', f'--workdir={path / "run"}', f'--output={path / "bundle"}']) == 0

  return made_once('language', make)


@pytest.fixture
def decode(language_run, capsys):
  """Returns decode(*flags) -> what the command printed on both streams."""

  def run(*flags):
    assert main(['decode', f'--bundle={language_run / "bundle"}', *map(str, flags)]) == 0
    return capsys.readouterr()

  return run


def test_the_command_goes_on_from_flag_and_file_alike(decode, tmp_path):
  (tmp_path / 'prompt.txt').write_text('Red tree\n')
  (tmp_path / 'prompts.jsonl').write_text(json.dumps({'prompt': 'Red tree'}))
  from_flag = decode('--input=Red tree', '--json').out
  assert json.loads(from_flag)['stats']['input_tokens'] > 1
  from_file = decode(f'--input_file={tmp_path / "prompt.txt"}', '--json').out
  from_line = decode(f'--input_file={tmp_path / "prompts.jsonl"}', '--field=prompt', '--json').out
  assert json.loads(from_flag)['output'] == json.loads(from_file)['output'] == json.loads(from_line)['output']


@pytest.mark.parametrize('flags', [[], ['--beams=2'], ['--temperature=1', '--seed=3']])
def test_an_empty_prompt_is_allowed(decode, tmp_path, flags):
  (tmp_path / 'nothing.txt').write_text('')
  written = decode('--input=', '--max_tokens=8', *flags).out
  assert written.strip()
  assert decode(f'--input_file={tmp_path / "nothing.txt"}', '--max_tokens=8', *flags).out == written


def test_a_batch_is_told_text_by_text(decode, tmp_path):
  prompts = ['', 'Red tree', 'Blue road cloud ' * 30]
  (tmp_path / 'prompts.jsonl').write_text('\n'.join(json.dumps({'inputs': prompt}) for prompt in prompts))
  said = decode(f'--input_file={tmp_path / "prompts.jsonl"}', '--batch_size=3', '--json')
  rows = [json.loads(line) for line in said.out.splitlines()]
  alone = [json.loads(decode(f'--input={prompt}', '--json').out) for prompt in prompts]
  own = functools.partial(map, lambda row: (row['output'], row['stats']['input_tokens'], row['stats']['tokens']))
  assert list(own(rows)) == list(own(alone))
  dropped = rows[2]['stats']['dropped_tokens']
  assert dropped > 0
  words = f'the first {dropped} tokens of the input were not read; the model was trained on at most 24'
  assert said.err == f'note: text 3: {words}\n'


def test_an_evaluation_goes_on_from_the_first_half_of_each_text(language_run, capsys):
  run = language_run / 'run'
  assert main(['evaluate', f'--workdir={run}', '--limit=5', '--json']) == 0
  result = json.loads(capsys.readouterr().out)
  decoder = Decoder.open(language_run / 'bundle')
  assert len(result['texts']) == 5 and all(text for triple in result['texts'] for text in triple[:2])
  assert [text for _, _, text in result['texts']] == decoder.generate_batch([prompt for prompt, *_ in result['texts']])
  assert (result['rouge'], result['exact_match'], result['scores']) == ({}, None, [])
  assert result['loss_with_shuffled_sources'] is result['distinct_texts'] is result['distinct_references'] is None
  assert main(['evaluate', f'--workdir={run}', '--limit=5', '--examples=1']) == 0
  told = capsys.readouterr().out
  assert 'prompt: ' in told and 'its text: ' in told and 'ROUGE' not in told and 'evaluation_test.html' in told
  assert 'its source' not in told and 'distinct' not in told
  assert (run / 'evaluation_test.html').read_text().count('<b>prompt</b>') == 5


@pytest.mark.parametrize('kind', ['TerraformerConfig', 'EncoderDecoderConfig'])
def test_a_model_that_reads_sources_is_not_trained_without_them(language_run, tmp_path, capsys, kind):
  bindings = (f'config.RunConfig.model = @config.{kind}()', f'config.{kind}.vocab_size = 452')
  gin = [f'--gin_file={language_run / "run.gin"}', *(f'--gin_bindings={binding}' for binding in bindings)]
  assert main(['train', f'--workdir={tmp_path / "run"}', *gin]) == 2
  assert f'{kind} reads a source, but the data have none' in capsys.readouterr().err


def test_lengths_that_the_positions_do_not_hold_are_named(language_run, tmp_path):
  path = shutil.copytree(language_run / 'bundle', tmp_path / 'bundle') / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'inputs_length': 5}))
  with pytest.raises(UserError, match=r'inputs_length \(5\) and targets_length \(24\) exceed the .* positions \(24\)'):
    Decoder.open(path.parent)


def test_a_space_between_prompt_and_continuation_is_written(language_run):
  decoder = Decoder.open(language_run / 'bundle')
  token = next(i for i in range(3, 450) if decoder.bundle.tokenizer._texts[i].startswith(' '))
  text = decoder.bundle.tokenizer._texts[token]
  assert list(decoder._pieces('Red', [token])) == [text]
  assert list(decoder._pieces('', [token])) == ([text[1:]] if text[1:] else [])
