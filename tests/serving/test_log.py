"""The log goes on, whatever happens to its file."""

import pytest

from terraformer.config import UserError
from terraformer.serving.log import Log


def test_a_full_disk_is_said_once_and_lines_are_counted(capsys):
  log = Log('info', '/dev/full')
  for _ in range(3):
    log.logger.info('a line')
  log.close()
  assert log.n_lost == 3
  assert capsys.readouterr().err == (
    'terraformer serve: cannot write to /dev/full: no space left on device; serving goes on\n'
  )


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
  with pytest.raises(UserError, match=f'cannot write {tmp_path}: is a directory'):
    Log('info', tmp_path)


def test_lines_below_the_level_are_left_out_and_others_appended(tmp_path):
  path = tmp_path / 'log'
  path.write_text('before\n')
  log = Log('warning', path)
  log.logger.info('no')
  log.logger.warning('yes\nno')
  log.close()
  before, line = path.read_text().splitlines()
  assert before == 'before' and line.endswith(' WARNING yes\\nno')
