"""Checkpoints of trax, whole and spoiled."""

import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / 'checkpoints'


@pytest.fixture
def copied(tmp_path):
  """Returns copied(name) -> a copy of a checkpoint's folder that a test may change."""

  def copied(name):
    folder = tmp_path / name
    folder.mkdir()
    for path in (FOLDER / name).iterdir():
      shutil.copyfile(path, folder / path.name)
    return folder

  return copied
