"""What mkdocs is told about files outside of docs/.

Links are written as they work in the repository. On the site some of the files that they lead to are pages as well;
a link to any other file leads to the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
REPOSITORY = 'https://github.com/terraformer-jax/terraformer-jax/blob/main'
PAGES = ('CHANGELOG.md', 'CONTRIBUTING.md', 'benchmarks/*.md', 'benchmarks/*.png', 'terraformer/pretrained/*.md')

_LINK = re.compile(r'(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)')


def on_files(files, config):
  """Adds pages that lie outside of docs/, under their path in the repository."""
  for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
    uri = path.relative_to(ROOT).as_posix()
    files.append(File.generated(config, uri, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown, page, config, files):
  """Turns links of the repository into links of the site."""
  outside = page.file.src_uri.startswith(('CHANGELOG', 'CONTRIBUTING', 'benchmarks/', 'terraformer/'))
  here = page.file.src_uri if outside else f'docs/{page.file.src_uri}'

  def translated(match: re.Match) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
    uri = target.removeprefix('docs/')
    if files.get_file_from_path(uri) is None:
      return match[1] if target.startswith('docs/') else f'{REPOSITORY}/{target}'
    return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')

  return _LINK.sub(translated, markdown)
