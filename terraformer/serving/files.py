"""Text of uploaded files. What a file is follows from its content, not from its name."""

import asyncio
import dataclasses
import json
import re
import subprocess
import sys

from starlette.concurrency import run_in_threadpool

from terraformer.serving import pdf
from terraformer.serving.errors import ApiError

_PDF_WITHIN = 1024  # bytes; readers accept some before the header
_BINARY = re.compile('[\0-\x08\x0e-\x1a]')  # no text has these control characters
_MARKS = {b'\xef\xbb\xbf': 'utf-8-sig', b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16'}


@dataclasses.dataclass(frozen=True)
class Source:
  """The text of a file.

  Attributes:
    text: all text.
    kind: `text` or `pdf`.
    pages: number of pages; None for text.
  """

  text: str
  kind: str = 'text'
  pages: int | None = None


class FileReader:
  """Reads files, and at most two PDFs at a time."""

  def __init__(self):
    self._pdfs = asyncio.Semaphore(2)

  async def read(self, data: bytes) -> Source:
    """Returns the text of a file.

    Raises:
      ApiError: if it is neither text nor PDF, or damaged, or has no text.
    """
    if not data:
      raise ApiError(400, 'file: the file is empty', 'empty_file', 'file')
    if b'%PDF-' in data[:_PDF_WITHIN]:
      async with self._pdfs:
        return await run_in_threadpool(_read_pdf, data)
    return _read_text(data)


def _read_text(data: bytes) -> Source:
  encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), 'utf-8')
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError:
    text = '\0'
  if _BINARY.search(text):
    message = 'file: this is neither a PDF nor a text in UTF-8; save it as one of these'
    raise ApiError(415, message, 'unsupported_file', 'file')
  return Source(text)


def _read_pdf(data: bytes) -> Source:
  command = [sys.executable, '-P', pdf.__file__]  # without the modules beside it on its path
  try:
    done = subprocess.run(command, input=data, capture_output=True, timeout=2 * pdf.MOST_SECONDS, check=False)
    found = json.loads(done.stdout)
  except (subprocess.TimeoutExpired, ValueError):  # a process that reached its limit has written nothing
    found = {'error': f'the PDF cannot be read within {pdf.MOST_SECONDS} seconds'}
  if 'error' in found:
    raise ApiError(400, f'file: {found["error"]}', 'unreadable_file', 'file')
  return Source(found['text'], 'pdf', found['pages'])
