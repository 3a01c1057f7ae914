"""Files at addresses: a file system in memory and a server of this machine stand in for buckets and hosts."""

import base64
import hashlib
import http.server
import json
import os
import threading
import time

import fsspec
import pytest

from terraformer.config import UserError
from terraformer.data import downloads
from terraformer.data.downloads import local_copy

DATA = os.urandom(5_000_000)
MEMORY = fsspec.filesystem('memory')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TERRAFORMER_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def bucket():
  """Files in memory, at memory://bucket."""
  MEMORY.pipe({'/bucket/a.bin': DATA, '/bucket/b.txt': b'text', '/bucket/c.opt': b'more', '/bucket/in/d.txt': b'below'})
  yield MEMORY
  MEMORY.rm('/bucket', recursive=True)


def test_a_local_path_is_returned_as_it_is(tmp_path):
  assert local_copy(tmp_path / 'any') == tmp_path / 'any'


def test_a_file_is_downloaded(bucket):
  path = local_copy('memory://bucket/a.bin')
  assert path.name == 'a.bin' and path.read_bytes() == DATA


def test_files_of_a_folder_are_downloaded_by_pattern(bucket):
  folder = local_copy('memory://bucket', ('*.bin', '*.txt'))
  assert sorted(path.name for path in folder.iterdir() if path.name[0] != '.') == ['a.bin', 'b.txt']


def test_what_was_downloaded_needs_no_network(bucket, monkeypatch):
  path = local_copy('memory://bucket/a.bin')
  monkeypatch.setattr(downloads, '_download', None)
  assert local_copy('memory://bucket/a.bin') == path


class _Broken:
  """A file that breaks off after some bytes, once or always."""

  def __init__(self, file, room, seeks):
    self._file, self._room, self._seeks = file, room, seeks

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._file.close()

  def seek(self, place):
    self._seeks.append(place)
    self._file.seek(place)

  def read(self, n):
    data = self._file.read(n)
    self._room -= len(data)
    if self._room < 0:
      raise OSError('connection reset')
    return data


@pytest.fixture
def breaking(bucket, monkeypatch):
  """Returns breaking(rooms): the files that are opened one after another break off after so many bytes; it returns the
  places from which they were read."""
  opened = type(bucket).open

  def breaking(*rooms):
    rooms, seeks = list(rooms), []

    def open_broken(self, path, *arguments, **options):
      file = opened(self, path, *arguments, **options)
      return _Broken(file, rooms.pop(0) if rooms else 10**9, seeks)

    monkeypatch.setattr(type(bucket), 'open', open_broken)
    return seeks

  return breaking


def test_a_connection_that_breaks_is_made_again(breaking):
  seeks = breaking(2_500_000)
  assert local_copy('memory://bucket/a.bin').read_bytes() == DATA and seeks == [2 << 20]


def test_what_was_interrupted_goes_on(breaking):
  breaking(*[1_500_000] * downloads._ATTEMPTS)
  with pytest.raises(UserError, match='memory://bucket/a.bin: cannot be reached .*the same command goes on with it'):
    local_copy('memory://bucket/a.bin')
  seeks = breaking()
  assert local_copy('memory://bucket/a.bin').read_bytes() == DATA and seeks == [3 << 20]


def test_a_file_that_has_changed_is_downloaded_anew(breaking, bucket):
  breaking(*[1_500_000] * downloads._ATTEMPTS)
  with pytest.raises(UserError):
    local_copy('memory://bucket/a.bin')
  bucket.pipe('/bucket/a.bin', DATA[::-1][:4_000_000])
  assert local_copy('memory://bucket/a.bin').read_bytes() == DATA[::-1][:4_000_000]


def test_a_damaged_file_is_removed(bucket, monkeypatch, cache):
  told = type(bucket).info
  digest = base64.b64encode(hashlib.md5(b'other').digest()).decode()
  monkeypatch.setattr(type(bucket), 'info', lambda self, path, **_: told(self, path) | {'md5Hash': digest})
  with pytest.raises(UserError, match='a.bin: the download is damaged'):
    local_copy('memory://bucket/a.bin')
  assert not [*cache.rglob('a.bin'), *cache.rglob('a.bin.part')]


@pytest.mark.parametrize(
  ('address', 'says'),
  [
    ('memory://bucket/none', 'memory://bucket/none: there is no such file'),
    ('nosuch://bucket/x', 'nosuch://bucket/x: cannot be reached'),
    ('hf://owner', 'has the form hf://owner/name'),
    ('hf://owner/name@a b', 'has the form hf://owner/name'),
  ],
)
def test_an_address_that_leads_nowhere_is_named(bucket, address, says):
  with pytest.raises(UserError, match=says):
    local_copy(address)


def test_a_folder_without_the_files_that_are_needed_is_named(bucket):
  with pytest.raises(UserError, match='there is none of the files config.gin'):
    local_copy('memory://bucket', ('config.gin',))


def test_a_folder_without_a_file_that_is_needed_is_looked_at_again(bucket):
  patterns = 'b.txt', 'later.txt'
  with pytest.raises(UserError, match='memory://bucket: there is no file later.txt in this folder'):
    local_copy('memory://bucket', patterns, needed=('later.txt',))
  bucket.pipe('/bucket/later.txt', b'now')
  assert (local_copy('memory://bucket', patterns, needed=('later.txt',)) / 'later.txt').read_bytes() == b'now'


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setattr(fsspec.core, 'url_to_fs', _without_package)
  with pytest.raises(UserError, match=r'a package is missing .*terraformer-jax\[remote\]'):
    local_copy('gs://bucket/x')


def _without_package(address):
  raise ImportError('install gcsfs')


# --- A server of this machine ----------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves a dict of files, or of parts of them."""

  def do_GET(self):
    server = self.server
    server.asked.append((self.command, self.path, self.headers.get('Range')))
    data = server.files.get(self.path.split('?')[0])
    if data is None:
      self.send_error(404)
      return
    data, headers = data if isinstance(data, tuple) else (data, {})
    first, status = 0, 200
    if asked := self.headers.get('Range'):
      first, _, last = asked.removeprefix('bytes=').partition('-')
      first, last, status = int(first), min(int(last or len(data) - 1), len(data) - 1), 206
      headers = headers | {'Content-Range': f'bytes {first}-{last}/{len(data)}'}
      data = data[first : last + 1]
    self.send_response(status)
    for name, value in {'Accept-Ranges': 'bytes', 'Content-Length': str(len(data)), **headers}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(data)

  do_HEAD = do_GET

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.files, server.asked = {}, []
  threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
  server.address = f'http://127.0.0.1:{server.server_port}'
  yield server
  server.shutdown()
  server.server_close()


def test_a_file_of_a_host_is_downloaded_and_gone_on_with(server, cache):
  pytest.importorskip('aiohttp')
  server.files['/folder/a.bin'] = DATA
  address = f'{server.address}/folder/a.bin'
  path = local_copy(address)
  assert path.read_bytes() == DATA
  (path.parent / downloads._COMPLETE).unlink()
  path.rename(path.with_name('a.bin.part'))
  with path.with_name('a.bin.part').open('r+b') as file:
    file.truncate(1_000_000)
  path.with_name('a.bin.version').write_text(json.dumps([len(DATA), 'None']))
  server.asked.clear()
  assert local_copy(address).read_bytes() == DATA
  assert all(asked.startswith('bytes=1000000-') for _, _, asked in server.asked if asked)


@pytest.mark.parametrize('path', ['/none', ''])
def test_a_host_that_has_no_such_file_or_does_not_answer_is_named(server, path):
  pytest.importorskip('aiohttp')
  address = f'{server.address}{path}' if path else 'http://127.0.0.1:1/x'
  sentence = 'there is no such file' if path else 'cannot be reached .*; check it and the network$'
  with pytest.raises(UserError, match=sentence):
    local_copy(address)


def test_files_of_a_host_are_found_by_their_names(server):
  pytest.importorskip('aiohttp')
  server.files |= {'/folder/a.bin': DATA, '/folder/b.txt': b'text', '/folder/': b'a page that lists nothing'}
  folder = local_copy(f'{server.address}/folder', ('a.bin', 'b.txt', 'absent.txt', '*.more'), needed=('a.bin',))
  assert sorted(path.name for path in folder.iterdir() if path.name[0] != '.') == ['a.bin', 'b.txt']


@pytest.mark.parametrize(
  ('needed', 'says'), [('c.bin', 'there is no file c.bin in'), ('*.bin', r'no file \*.bin .*give the address of one')]
)
def test_a_host_without_a_file_that_is_needed_is_named_and_asked_again(server, needed, says):
  pytest.importorskip('aiohttp')
  server.files['/folder/b.txt'] = b'text'
  for _ in range(2):
    server.asked.clear()
    with pytest.raises(UserError, match=says):
      local_copy(f'{server.address}/folder', ('b.txt', needed), needed=(needed,))
    assert server.asked


def test_what_takes_long_is_told(monkeypatch, capsys):
  monkeypatch.setattr(downloads, '_PATIENCE', 0.01)
  with downloads._reaching('gs://bucket/a'):
    time.sleep(0.2)
  assert capsys.readouterr().err == 'reading from gs://bucket/a ...\n'


# --- A stand-in of the hub's API -------------------------------------------------------------------------------------

SHA = '0123456789abcdef0123456789abcdef01234567'


@pytest.fixture
def hub(server, monkeypatch):
  constants = pytest.importorskip('huggingface_hub.constants')
  template = server.address + '/{repo_id}/resolve/{revision}/{filename}'
  values = {'ENDPOINT': server.address, 'HUGGINGFACE_CO_URL_TEMPLATE': template, 'HF_HUB_DISABLE_XET': True}
  for name, value in values.items():
    monkeypatch.setattr(constants, name, value)

  def add(**files):
    names = [{'rfilename': name} for name in files]
    about = json.dumps({'id': 'owner/name', 'sha': SHA, 'siblings': names, 'tags': [], 'private': False}).encode()
    for revision in ('main', 'v1', SHA):
      server.files[f'/api/models/owner/name/revision/{revision}'] = about, {'Content-Type': 'application/json'}
    tree = [{'type': 'file', 'path': name, 'size': len(data), 'oid': SHA} for name, data in files.items()]
    server.files[f'/api/models/owner/name/tree/{SHA}'] = json.dumps(tree).encode(), {'Content-Type': 'application/json'}
    for name, data in files.items():
      headers = {'ETag': f'"{hashlib.sha256(data).hexdigest()}"', 'X-Repo-Commit': SHA}
      server.files[f'/owner/name/resolve/{SHA}/{name}'] = data, headers
    return server

  return add


def test_a_repository_of_the_hub_is_downloaded_once(hub):
  server = hub(**{'config.json': b'{}', 'model.safetensors': DATA, 'README.md': b'about'})
  folder = local_copy('hf://owner/name@v1', ('config.json', 'model*.safetensors'), show_progress=False)
  assert (folder / 'model.safetensors').read_bytes() == DATA and not (folder / 'README.md').exists()
  server.asked.clear()
  assert local_copy('hf://owner/name@v1', ('config.json', 'model*.safetensors'), show_progress=False) == folder
  assert not [path for _, path, _ in server.asked if path.endswith('.safetensors')]


def test_a_repository_that_is_not_there_is_named(hub):
  hub()
  with pytest.raises(UserError, match='hf://owner/other: cannot be reached'):
    local_copy('hf://owner/other', show_progress=False)
