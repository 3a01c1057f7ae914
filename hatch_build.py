"""Compiles the native kernels into the package when it is installed or built.

Without a C++ compiler the package is still installed, and decoding uses XLA. (scikit-build-core also builds extensions,
but its editable installs take precedence over `PYTHONPATH`.)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

LIBRARY = 'terraformer/native/_kernels.so'


class CustomBuildHook(BuildHookInterface):
  """The build hook, which hatchling finds in this file."""

  def initialize(self, version: str, build_data: dict[str, Any]) -> None:
    """Builds the library into the source tree, where wheels and editable installs find it."""
    target = Path(self.root) / LIBRARY
    target.unlink(missing_ok=True)
    try:
      self._build(target)
    except (OSError, subprocess.CalledProcessError) as error:
      output = getattr(error, 'output', None) or str(error)
      self.app.display_warning(f'decoding will use XLA: the native kernels were not built\n{output}')
      return
    build_data['artifacts'].append(f'/{LIBRARY}')
    # One wheel for every Python: the library is loaded by ctypes.
    build_data['pure_python'] = False
    build_data['tag'] = f'py3-none-{next(platform_tags())}'

  def _build(self, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
      configure = ['cmake', '-S', self.root, '-B', folder, '-G', 'Ninja', f'-DPython_EXECUTABLE={sys.executable}']
      for command in (configure, ['cmake', '--build', folder]):
        subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
      shutil.copy2(Path(folder) / '_kernels.so', target)
