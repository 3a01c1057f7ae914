"""The native library is there wherever it can be built; other tests of it are skipped where it is not."""

import shutil

import pytest

from terraformer.native.library import why_missing


@pytest.mark.skipif(not any(map(shutil.which, ('c++', 'g++', 'clang++'))), reason='no C++ compiler')
def test_it_was_built_where_there_is_a_compiler():
  assert why_missing() is None, 'install the package again'
