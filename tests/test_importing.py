"""Imported checkpoints as bundles and as runs, through the commands that users type."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from benchmarks import trax_checkpoint
from terraformer.cli import main
from terraformer.config import DecodeConfig, UserError
from terraformer.data.bare_ids import BareIds
from terraformer.data.subwords import SubwordTokenizer
from terraformer.data.tokenizer import Tokenizer
from terraformer.decode.bundle import open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.prompts import make_prompts
from terraformer.importing import FINE_TUNING, import_bundle, import_run
from terraformer.training import checkpoint

FIXTURES = Path(__file__).parent / 'trax' / 'checkpoints'
SUBWORDS = Path(__file__).parent / 'data' / 'vectors' / 'small.subword'


def _checksums(bundle):
  return json.loads((bundle / 'config.json').read_text())['checksums']


@pytest.fixture(scope='module')
def articles(tmp_path_factory):
  """A small checkpoint of the kind that summarizes articles, whose vocabulary is subwords."""
  folder = tmp_path_factory.mktemp('articles')
  trax_checkpoint.write(folder, trax_checkpoint.SIZES['small'] | {'n_decoder_layers': 1, 'n_decoder_attentions': 1})
  return folder


@pytest.fixture(scope='module')
def imported(articles, tmp_path_factory):
  """The run of it."""
  workdir = tmp_path_factory.mktemp('runs') / 'imported'
  import_run(articles, workdir, vocabulary=SUBWORDS)
  return workdir


# --- Bundles ---------------------------------------------------------------------------------------------------------


def test_the_command_reports_every_entry(tmp_path, capsys):
  report = tmp_path / 'report.txt'
  assert (
    main(['import', f'--checkpoint={FIXTURES / "c4_big"}', f'--output={tmp_path / "b"}', f'--report={report}']) == 0
  )
  lines = report.read_text().splitlines()
  assert lines[1] == '    1 encoder_pos/table [36, 40] -> encoder_positions.table_PxD'
  said = capsys.readouterr().out
  assert len(lines) == 136 and '136 entries: 135 became parameters, 1 were dropped, none is left over' in said
  assert 'dropped: 2 embedding_again [69, 40] -> nothing: a copy of the first entry' in said


def test_a_line_that_cannot_be_read_is_named(articles, tmp_path, capsys):
  assert main(['import', f'--checkpoint={articles}', f'--output={tmp_path / "bundle"}']) == 0
  assert "config.gin: cannot read the line 'mira.pipeline(stream)" in capsys.readouterr().err


def test_a_bundle_is_replaced(tmp_path):
  import_bundle(FIXTURES / 'c4_big', tmp_path / 'bundle')
  import_bundle(FIXTURES / 'arxiv_dense', tmp_path / 'bundle')
  assert open_bundle(tmp_path / 'bundle').model.vocab_size == 65


def test_a_bundle_without_a_vocabulary_takes_and_returns_ids(tmp_path):
  import_bundle(FIXTURES / 'arxiv_mixed', tmp_path / 'bundle')
  with np.load(FIXTURES / 'arxiv_mixed' / 'expected.npz') as expected:
    source, greedy = expected['tok_e'][0], expected['greedy'][0]
  decoder = Decoder.open(tmp_path / 'bundle')
  assert isinstance(decoder.bundle.tokenizer, BareIds)
  text = ' '.join(str(id_) for id_ in source if id_)
  assert ''.join(decoder.generate(text, DecodeConfig(max_tokens=10))) == ' '.join(map(str, greedy))


@pytest.mark.parametrize(('name', 'ends'), [('arxiv_mixed', False), ('c4_big', True)])
def test_a_source_ends_as_in_the_authors_pipeline(tmp_path, name, ends):
  import_bundle(FIXTURES / name, tmp_path / 'bundle')
  bundle = open_bundle(tmp_path / 'bundle')
  assert bundle.inputs_eos == ends
  assert make_prompts(bundle, ['5 6 7'], DecodeConfig()).read == [3 + ends]


def test_a_long_source_is_cut_as_in_the_authors_pipeline(tmp_path):
  import_bundle(FIXTURES / 'arxiv_mixed', tmp_path / 'bundle')
  prompts = make_prompts(open_bundle(tmp_path / 'bundle'), [' '.join(['5'] * 45)], DecodeConfig())
  assert (prompts.read, prompts.dropped) == ([39], [6])


def test_a_subword_vocabulary_is_stored_with_its_shift(articles, tmp_path):
  import_bundle(articles, tmp_path / 'bundle', vocabulary=SUBWORDS, dtype='bfloat16')
  tokenizer = open_bundle(tmp_path / 'bundle').tokenizer
  assert isinstance(tokenizer, SubwordTokenizer) and tokenizer.fingerprint == Tokenizer.open(SUBWORDS).fingerprint


def test_the_shift_is_that_of_the_config(articles, tmp_path):
  config = tmp_path / 'config.gin'
  config.write_text((articles / 'config.gin').read_text() + '\ndata.Tokenize.n_reserved_ids = 7\n')
  import_bundle(articles, tmp_path / 'bundle', config=config, vocabulary=SUBWORDS)
  assert open_bundle(tmp_path / 'bundle').tokenizer.reserved_ids == 7


def test_a_sentencepiece_vocabulary_is_stored(articles, tmp_path, tokenizer):
  (tmp_path / 'spiece.model').write_bytes(tokenizer.model_bytes)
  import_bundle(articles, tmp_path / 'bundle', vocabulary=tmp_path / 'spiece.model')
  assert open_bundle(tmp_path / 'bundle').tokenizer.encode('Red tree.') == tokenizer.encode('Red tree.')


def test_a_vocabulary_that_is_too_large_is_refused(tmp_path):
  with pytest.raises(UserError, match='the vocabulary has 729 ids, but the model has 84'):
    import_bundle(FIXTURES / 'c4_medium', tmp_path / 'bundle', vocabulary=SUBWORDS)


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
  (tmp_path / 'binary').write_bytes(b'\x00\xff' * 100)
  with pytest.raises(UserError, match='this is not a subword file'):
    import_bundle(FIXTURES / 'c4_medium', tmp_path / 'bundle', vocabulary=tmp_path / 'binary')


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr('terraformer.importing.value_of', interrupted)
  for target in ('output', 'workdir'):
    assert main(['import', f'--checkpoint={FIXTURES / "c4_big"}', f'--{target}={tmp_path / "it"}']) == 130
  assert not any(tmp_path.iterdir())


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """Copies of fixtures in memory, at memory://bucket."""
  monkeypatch.setenv('TERRAFORMER_CACHE', str(tmp_path / 'cache'))
  memory = fsspec.filesystem('memory')
  yield memory
  memory.rm('/bucket', recursive=True)


def _put(bucket, folder, name):
  bucket.pipe({f'/bucket/{name}/{path.name}': path.read_bytes() for path in folder.iterdir() if path.is_file()})


@pytest.mark.parametrize('address', ['memory://bucket/model', 'memory://bucket/model/model_2.pkl.gz'])
def test_a_checkpoint_at_an_address_is_imported(bucket, tmp_path, address):
  _put(bucket, FIXTURES / 'arxiv_mixed', 'model')
  bucket.pipe('/bucket/model/model_2.opt_slots0.npy.gz', b'which nobody needs')
  import_bundle(address, tmp_path / 'there')
  import_bundle(FIXTURES / 'arxiv_mixed', tmp_path / 'here')
  assert _checksums(tmp_path / 'there') == _checksums(tmp_path / 'here')
  assert not list((tmp_path / 'cache').rglob('*opt_slots*'))


def test_a_bundle_at_an_address_is_decoded(bucket, articles, tmp_path, capsys):
  bucket.pipe('/bucket/words/en.subword', SUBWORDS.read_bytes())
  import_bundle(articles, tmp_path / 'bundle', vocabulary='memory://bucket/words/en.subword')
  _put(bucket, tmp_path / 'bundle', 'bundle')
  assert main(['decode', '--bundle=memory://bucket/bundle', '--input=one', '--max_tokens=2']) == 0


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_an_imported_run_is_exported_as_the_imported_bundle(articles, imported, tmp_path):
  import_bundle(articles, tmp_path / 'bundle', vocabulary=SUBWORDS)
  assert main(['export', f'--workdir={imported}', f'--output={tmp_path / "exported"}']) == 0
  one, other = (open_bundle(tmp_path / name) for name in ('bundle', 'exported'))
  assert _checksums(tmp_path / 'bundle') == _checksums(tmp_path / 'exported')
  assert (one.model, one.inputs_eos, one.inputs_length) == (other.model, other.inputs_eos, other.inputs_length)


@pytest.fixture(scope='module')
def flags(imported, fake_prepared):
  """Flags of pairs of texts in the vocabulary of the run."""
  words = Tokenizer.open(imported / 'vocabulary.model', 0)
  data = fake_prepared('pairs', words=words, inputs_length=48, targets_length=16, inputs_eos=False)
  lines = [
    'config.DataConfig.source = @config.SeqioTaskConfig()',
    "config.SeqioTaskConfig.name = 'pairs'",
    f'config.DataConfig.directory = {data.directory!r}',
    'config.TokenizerConfig.path = ""',
    'config.TokenizerConfig.sentinels = 100',
    'config.TrainConfig.batch_size = 4',
    'config.TrainConfig.eval_every = 0',
    'config.TrainConfig.sample_every = 0',
    'config.TrainConfig.diagnostics_every = 0',
    'config.CheckpointConfig.every = 10',
  ]
  return [f'--gin_file={imported / FINE_TUNING}', *(f'--gin_bindings={line}' for line in lines)]


def test_an_imported_run_is_scored(imported, flags, capsys):
  arguments = ['evaluate', f'--workdir={imported}', *flags, '--limit=2', '--perplexity', '--json']
  assert main(arguments) == 0
  assert json.loads(capsys.readouterr().out)['step'] == trax_checkpoint.STEP


def test_a_run_begins_with_imported_parameters(imported, flags, tmp_path):
  tuned = tmp_path / 'tuned'
  assert main(['train', f'--workdir={tuned}', *flags, '--gin_bindings=config.TrainConfig.steps = 2']) == 0
  assert checkpoint.steps(tuned) == [2]
  assert main(['export', f'--workdir={tuned}', f'--output={tmp_path / "bundle"}']) == 0
  bundle = open_bundle(tmp_path / 'bundle')
  assert not bundle.inputs_eos and bundle.tokenizer.size == Tokenizer.open(SUBWORDS).size


def test_the_imported_folder_itself_cannot_be_resumed(imported, flags, capsys):
  assert main(['train', f'--workdir={imported}', *flags]) == 2
  assert 'were imported, and nothing in the folder can be resumed; train in another folder' in capsys.readouterr().err


def test_an_imported_run_is_not_scored_on_data_of_another_vocabulary(imported, flags, fake_prepared, capsys):
  data = fake_prepared('pairs', inputs_length=48, targets_length=16, inputs_eos=False)
  other = f'--gin_bindings=config.DataConfig.directory = {data.directory!r}'
  assert main(['evaluate', f'--workdir={imported}', *flags, other, '--limit=2', '--perplexity']) == 2
  assert 'prepared with another vocabulary than that of the run' in capsys.readouterr().err
