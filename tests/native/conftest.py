"""Where the library was not built, its tests are skipped, saying why."""

import pytest

from terraformer.native.library import variants, why_missing


def pytest_generate_tests(metafunc):
  if 'variant' in metafunc.fixturenames:
    metafunc.parametrize('variant', [] if why_missing() else variants())


@pytest.fixture(autouse=True)
def _library():
  if reason := why_missing():
    pytest.skip(f'no native library: {reason}')
