"""Bundles that are whole, and bundles that are not."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from terraformer.config import DecodeConfig, UserError
from terraformer.decode import bundle as bundle_module
from terraformer.decode.bundle import open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.stored import PackedMatrix, plain
from terraformer.decode.tensors import checksum
from terraformer.exporting import export
from terraformer.models.parameters import flatten, split_module
from terraformer.training import checkpoint


@pytest.fixture
def bundle_copy(bundle, tmp_path):
  return shutil.copytree(bundle, tmp_path / 'copy')


def test_it_holds_the_checkpoint_layer_by_layer(bundle, finished_run):
  opened = open_bundle(bundle)
  run, stored = checkpoint.read_run(finished_run, 24)
  assert opened.model == run.model
  assert opened.origin == {'step': 24, 'gin': stored['gin'], 'data_fingerprint': stored['data_fingerprint']}
  params = flatten(checkpoint.restore_params(finished_run, 24, run))
  weights = flatten(opened.weights)
  stacked = params['decoder.blocks.feed_forward.feed_forward.w1_MxNxD']
  for layer in range(2):
    single = weights[f'decoder.blocks.{layer}.feed_forward.feed_forward.w1_MxNxD']
    np.testing.assert_array_equal(single, stacked[layer], strict=True)
    packed = weights[f'decoder.blocks.{layer}.feed_forward.feed_forward.controller_RxMxN']
    assert isinstance(packed, PackedMatrix)
    stacked_controller = params['decoder.blocks.feed_forward.feed_forward.controller_RxMxN']
    np.testing.assert_array_equal(plain(packed), stacked_controller[layer], strict=True)
  assert sum(array.size for array in weights.values()) == sum(array.size for array in params.values())


def test_any_safetensors_reader_opens_it(bundle):
  tensors = safetensors.numpy.load_file(bundle / 'model.safetensors')
  assert tensors['embedding.table_VxD'].shape == (452, 16)


def test_a_bundle_that_came_with_the_package_is_opened_by_its_name(bundle, tmp_path, monkeypatch):
  monkeypatch.setattr(bundle_module, 'SHIPPED', tmp_path / 'package')
  shutil.copytree(bundle, tmp_path / 'package' / 'shipped')
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  assert open_bundle(Path('shipped')).origin == open_bundle(bundle).origin
  Path('shipped').mkdir()  # what the user has under this name comes first
  with pytest.raises(UserError, match=r'^shipped is not a bundle: it has no config\.json$'):
    open_bundle(Path('shipped'))


def test_export_replaces_a_bundle_and_nothing_else(finished_run, bundle_copy, tmp_path):
  (bundle_copy / 'model.safetensors').write_bytes(b'old')
  export(finished_run, bundle_copy)
  open_bundle(bundle_copy)
  other = tmp_path / 'thesis'
  other.mkdir()
  (other / 'chapter.txt').write_text('irreplaceable')
  with pytest.raises(UserError, match='thesis holds chapter.txt, which is not part of a bundle; give a new folder'):
    export(finished_run, other)
  assert [path.name for path in other.iterdir()] == ['chapter.txt']
  assert sorted(path.name for path in tmp_path.iterdir()) == ['copy', 'thesis']


def test_an_export_that_fails_leaves_the_old_bundle(finished_run, bundle_copy, monkeypatch):
  rename, before = Path.rename, (bundle_copy / 'model.safetensors').read_bytes()

  def interrupted(path, target):
    if path.name == 'new':
      raise KeyboardInterrupt
    return rename(path, target)

  monkeypatch.setattr(Path, 'rename', interrupted)
  with pytest.raises(KeyboardInterrupt):
    export(finished_run, bundle_copy)
  assert (bundle_copy / 'model.safetensors').read_bytes() == before
  assert [path.name for path in bundle_copy.parent.iterdir()] == ['copy']


def change_config(path, **values):
  config = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(config | values))


def break_format(path):
  change_config(path, format=1)


def break_json(path):
  (path / 'config.json').write_text('{"format": 1, ')


def lose_field(path):
  config = json.loads((path / 'config.json').read_text())
  del config['vocabulary']
  (path / 'config.json').write_text(json.dumps(config))


def foreign_config(path):
  (path / 'config.json').write_text('{"model_type": "t5"}')


def unknown_field(path):
  model = json.loads((path / 'config.json').read_text())['model']
  change_config(path, model=model | {'n_experts': 4})


def lose_weights(path):
  (path / 'model.safetensors').unlink()


def cut_weights(path):
  data = (path / 'model.safetensors').read_bytes()
  (path / 'model.safetensors').write_bytes(data[: len(data) // 2])


def other_shape(path):
  tensors = safetensors.numpy.load_file(path / 'model.safetensors')
  tensors['norm.scale_D'] = tensors['norm.scale_D'][:-1].copy()
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')


def extra_tensor(path):
  tensors = safetensors.numpy.load_file(path / 'model.safetensors')
  safetensors.numpy.save_file(tensors | {'adapter': np.zeros(1, np.float32)}, path / 'model.safetensors')


def other_vocabulary(path):
  (path / 'vocabulary.model').write_bytes(b'not a model')


def flip_weights(path):
  data = bytearray((path / 'model.safetensors').read_bytes())
  data[-100] ^= 1
  (path / 'model.safetensors').write_bytes(data)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (break_format, 'expected bundle format 5 or 4, found 1'),
    (
      lambda path: change_config(path, format=9),
      'config.json: expected at most bundle format 5, found 9, which a newer version wrote; update terraformer',
    ),
    (break_json, 'config.json is not valid JSON'),
    (lose_field, "config.json: the field 'vocabulary' is missing"),
    (foreign_config, 'config.json has no format number; it does not belong to a bundle'),
    (unknown_field, "TerraformerConfig has no field 'n_experts'; its fields are .*"),
    (lose_weights, 'model.safetensors is missing; export the bundle again'),
    (cut_weights, r'model.safetensors is cut off before the end of the tensor \S+ .*; copy or export the bundle again'),
    (flip_weights, r'model.safetensors: the tensor \S+ does not match its checksum'),
    (other_shape, r'model.safetensors: expected the tensor norm.scale_D of float32\[16\], found float32\[15\]'),
    (extra_tensor, 'model.safetensors has the tensor adapter, which the model in config.json does not have'),
    (other_vocabulary, 'vocabulary.model is not a sentencepiece model'),
  ],
)
def test_a_damaged_bundle_is_named(bundle_copy, damage, message):
  damage(bundle_copy)
  with pytest.raises(UserError, match=message) as raised:
    open_bundle(bundle_copy)
  assert str(bundle_copy) in str(raised.value) or 'TerraformerConfig' in str(raised.value)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'checksums': []}, "expected an object in the field 'checksums', found []"),
    ({'dtype': 'float8'}, "expected one of float32, bfloat16, int8 in the field 'dtype', found 'float8'"),
    ({'layouts': {'norm.scale_D': {'kind': 'panels'}}}, "norm.scale_D cannot be stored as {'kind': 'panels'}"),
    ({'layouts': {'norm.scale_D': 5}}, 'norm.scale_D cannot be stored as 5'),
    ({'layouts': {'adapter': {'kind': 'array'}}}, "has a layout for 'adapter', which is no parameter of the model"),
    ({'inputs_length': '48'}, "expected a whole number in the field 'inputs_length', found '48'"),
    ({'inputs_length': 0}, "expected 1 to 16 in the field 'inputs_length', found 0"),
    ({'targets_length': -5}, "expected 1 to 16 in the field 'targets_length', found -5"),
    ({'vocabulary': 'a'}, "expected an object in the field 'vocabulary', found 'a'"),
    ({'vocabulary': {'sentinels': 10**7, 'fingerprint': ''}}, "in the field 'sentinels', found 10000000"),
    ({'model': {'kind': []}}, 'config.json: config: this version has no kind of config named []'),
    ({'model': {'kind': 'DecodeConfig'}}, "expected a model's configuration in the field 'model', found DecodeConfig"),
  ],
)
def test_a_value_that_makes_no_sense_is_named(bundle_copy, values, message):
  change_config(bundle_copy, **values)
  with pytest.raises(UserError, match=re.escape(message)) as raised:
    open_bundle(bundle_copy)
  assert str(raised.value).startswith(str(bundle_copy / 'config.json'))


@pytest.mark.parametrize('header', [None, {}, {'__metadata__': {'format': 'np'}}])
def test_a_bundle_without_tensors_is_refused(bundle_copy, header):
  if header is None:
    (bundle_copy / 'model.safetensors.index.json').write_text('{"weight_map": {}}')
  else:
    text = json.dumps(header).encode()
    (bundle_copy / 'model.safetensors').write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(
    UserError, match='config.json: expected at least 4 tensors, one per sublayer, found 0 tensors in no file'
  ):
    open_bundle(bundle_copy)


@pytest.mark.parametrize('field', ['n_encoder_layers', 'n_decoder_layers', 'n_decoder_attentions'])
def test_layers_that_the_weights_cannot_have_are_refused_at_once(bundle_copy, field, monkeypatch):
  def counted(*_):
    raise AssertionError('expected the layers to be compared with the tensors before any is made')

  monkeypatch.setattr(bundle_module, 'stored_shapes', counted)
  model = json.loads((bundle_copy / 'config.json').read_text())['model']
  change_config(bundle_copy, model=model | {field: 4096})
  with pytest.raises(UserError, match='config.json: expected at least [0-9,]+ tensors, one per sublayer, found 1'):
    open_bundle(bundle_copy)


RUN = 'is a run, not a bundle; first: terraformer export --workdir=.*run --output=BUNDLE$'


@pytest.mark.parametrize(
  ('name', 'problem'),
  [
    ('nowhere', 'does not exist'),
    ('file', 'is a file'),
    ('empty', 'is not a bundle: it has no config.json'),
    ('run', RUN),
  ],
)
def test_what_is_not_a_bundle_is_named(tmp_path, name, problem):
  (tmp_path / 'file').write_text('x')
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
  with pytest.raises(UserError, match=f'{name} {problem}'):
    open_bundle(tmp_path / name)


def test_unrolled_weights_have_the_names_of_the_bundle(bundle, finished_run):
  opened = open_bundle(bundle)
  assert flatten(split_module(abstract_layerwise(opened.model))[1]).keys() == flatten(opened.weights).keys()


def test_a_large_bundle_is_verified_on_demand(bundle_copy, monkeypatch):
  flip_weights(bundle_copy)
  monkeypatch.setattr(bundle_module, '_VERIFIED_BYTES', 0)
  open_bundle(bundle_copy)
  with pytest.raises(UserError, match='does not match its checksum'):
    open_bundle(bundle_copy, verify=True)


@pytest.mark.parametrize('dtype, most', [('bfloat16', 0.7), ('int8', 0.65)])
def test_fewer_bits_take_less_space_and_write_much_the_same(finished_run, bundle, tmp_path, dtype, most):
  export(finished_run, tmp_path / 'small', dtype=dtype)
  exact, small = (open_bundle(path) for path in (bundle, tmp_path / 'small'))
  for name, array in flatten(exact.weights).items():
    array, found = plain(array), plain(flatten(small.weights)[name]).astype(np.float32)
    error = 2**-8 if dtype == 'bfloat16' else 0.5 / 127
    np.testing.assert_allclose(found, array, rtol=0, atol=error * np.abs(array).max() + 1e-9)
  # Most of the tiny model's tensors are vectors, headers and what fills up the last panel.
  sizes = [(path / 'model.safetensors').stat().st_size for path in (bundle, tmp_path / 'small')]
  assert sizes[1] <= most * sizes[0]
  tokens = [
    next(Decoder.open(path, engine=engine)._token_rows(['Red tree.'], DecodeConfig()))
    for path, engine in ((bundle, 'xla'), (tmp_path / 'small', 'xla'), (tmp_path / 'small', 'auto'))
  ]
  np.testing.assert_array_equal(tokens[1:], [tokens[0]] * 2)


def test_a_bundle_of_the_format_before_is_opened(bundle_copy):
  opened = open_bundle(bundle_copy)
  arrays = {name: np.ascontiguousarray(plain(value)) for name, value in flatten(opened.weights).items()}
  config = json.loads((bundle_copy / 'config.json').read_text())
  for field in ('dtype', 'layouts'):
    del config[field]
  checksums = {name: checksum(array) for name, array in arrays.items()}
  (bundle_copy / 'config.json').write_text(
    json.dumps(config | {'format': 4, 'bfloat16': False, 'checksums': checksums})
  )
  safetensors.numpy.save_file(arrays, bundle_copy / 'model.safetensors')
  before = flatten(open_bundle(bundle_copy).weights)
  for name, array in arrays.items():
    np.testing.assert_array_equal(plain(before[name]), array)


def test_an_export_reads_one_layer_at_a_time(finished_run, tmp_path, monkeypatch):
  read, largest = checkpoint.read_layer, 0

  def watched(*arguments):
    nonlocal largest
    tensor = read(*arguments)
    largest = max(largest, tensor.nbytes)
    return tensor

  monkeypatch.setattr(checkpoint, 'read_layer', watched)
  export(finished_run, tmp_path / 'bundle')
  tensors = flatten(open_bundle(tmp_path / 'bundle').weights)
  assert largest == max(4 * tensor.size for tensor in tensors.values())
