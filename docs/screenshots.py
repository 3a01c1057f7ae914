"""Takes the pictures of the page in `docs/screenshots/`.

With `terraformer serve` running: `python docs/screenshots.py http://127.0.0.1:8000`. Needs playwright and Chromium.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / 'screenshots'
SIZES = {'wide': (1100, 840), 'phone': (390, 1090)}
EARLIER = (
  'A small tool that checks the links of a web site. It follows every page once, in parallel, and prints those that '
  'lead nowhere.'
)
TEXT = (
  'Foobar is a library for reading and writing audio files in many formats from Python. It decodes and encodes WAV, '
  'FLAC, Ogg Vorbis and MP3, and converts sample rates on the way. Streams of any length are read piece by piece, so '
  'that a file never has to fit in memory. Tags and cover pictures are kept when a file is converted, and a damaged '
  'file is read as far as it goes. A command for the shell comes with it, which converts whole folders and shows how '
  'far it is. It uses all cores, and can be stopped at any moment without leaving half a file behind. This package '
  'contains the documentation.'
)


def summarize(page: Page, text: str) -> None:
  """Summarizes a text, and waits for the end."""
  page.fill('#source', text)
  page.click('#go')
  page.wait_for_selector('#facts', state='visible', timeout=120_000)


def main(url: str) -> None:
  """Takes a picture of each size and theme."""
  with sync_playwright() as running:
    browser = running.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
    for theme in ('light', 'dark'):
      for name, (width, height) in SIZES.items():
        page = browser.new_page(viewport={'width': width, 'height': height}, color_scheme=theme, locale='en-US')
        page.goto(url)
        for text in (EARLIER, TEXT):
          summarize(page, text)
        page.locator('#source').evaluate('field => { field.scrollTop = 0; field.blur() }')
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)
        page.screenshot(path=FOLDER / f'{name}_{theme}.png')
    browser.close()


if __name__ == '__main__':
  main(sys.argv[1])
