"""Small PDFs, written by hand."""


def pdf(*pages: str) -> bytes:
  """A PDF of one line of text for each page."""
  kids = ' '.join(f'{4 + 2 * number} 0 R' for number in range(len(pages)))
  objects = [
    b'<< /Type /Catalog /Pages 2 0 R >>',
    f'<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>'.encode(),
    b'<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
  ]
  for number, text in enumerate(pages):
    content = f'BT /F1 12 Tf 72 700 Td ({text}) Tj ET'.encode()
    objects.append(
      b'<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> '
      b'/Contents %d 0 R >>' % (5 + 2 * number)
    )
    objects.append(b'<< /Length %d >>\nstream\n%s\nendstream' % (len(content), content))
  data, offsets = b'%PDF-1.4\n', []
  for number, each in enumerate(objects, 1):
    offsets.append(len(data))
    data += b'%d 0 obj\n%s\nendobj\n' % (number, each)
  table = b''.join(b'%010d 00000 n \n' % offset for offset in offsets)
  head = b'xref\n0 %d\n0000000000 65535 f \n' % (len(objects) + 1)
  tail = b'trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n' % (len(objects) + 1, len(data))
  return data + head + table + tail
