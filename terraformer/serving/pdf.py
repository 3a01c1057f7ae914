"""A process that reads the text of one PDF: the file on its standard input, JSON on its standard output.

Some PDFs make any reader take minutes or gigabytes. A process can be limited and ended; a thread cannot.
"""

import io
import json
import logging
import resource
import sys

import pypdf
from pypdf.errors import PyPdfError

MOST_SECONDS = 20
_MOST_MEMORY = 2 * 2**30
_ENOUGH = 2_000_000  # characters; no model reads more


def main() -> None:
  """Reads the file and prints one object: `text` and `pages`, or `error`."""
  resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
  resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
  logging.disable()
  try:
    found = _read(sys.stdin.buffer.read())
  except MemoryError:
    found = {'error': 'the PDF needs too much memory'}
  except Exception:  # pypdf raises errors of many types for damaged files
    found = {'error': 'the PDF is damaged and cannot be read'}
  json.dump(found, sys.stdout)


def _read(data: bytes) -> dict:
  reader = pypdf.PdfReader(io.BytesIO(data))
  if reader.is_encrypted:
    try:
      is_open = bool(reader.decrypt(''))
    except (PyPdfError, ImportError):  # the latter without a library for this cipher
      is_open = False
    if not is_open:
      return {'error': 'the PDF has a password; save a copy without one'}
  texts, n_characters = [], 0
  for page in reader.pages:
    texts.append(page.extract_text())
    n_characters += len(texts[-1])
    if n_characters > _ENOUGH:
      break
  text = '\n\n'.join(texts)
  if not text.strip():
    return {'error': 'the PDF has no text; its pages may be pictures'}
  return {'text': text.encode('utf-8', 'replace').decode(), 'pages': len(reader.pages)}


if __name__ == '__main__':
  main()
