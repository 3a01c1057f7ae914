"""The page, as a person uses it in a browser."""

import re
import shutil

import pytest

from tests.serving.pdfs import pdf

playwright = pytest.importorskip('playwright.sync_api')
axe = pytest.importorskip('axe_playwright_python.sync_playwright')

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium on this machine; apt install chromium')
TEXT = 'Foobar is a library for reading and writing audio files in many formats from Python. ' * 12
SIZES = {'wide': {'width': 1200, 'height': 800}, 'phone': {'width': 360, 'height': 740}}
_MOST = 120_000  # milliseconds


def expect(page, selector):
  """What the page will have; by itself the browser cannot wait for a function, since the page's policy forbids it."""
  return playwright.expect(page.locator(selector))


@pytest.fixture(scope='module')
def browser():
  playwright.expect.set_options(timeout=_MOST)
  with playwright.sync_playwright() as running:
    browser = running.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser):
  """Returns open(url, ...) -> page; in the end nothing has left the machine, and nothing has failed on the page."""
  contexts, requests, errors = [], [], []

  def open_page(url, size='wide', **options):
    context = browser.new_context(viewport=SIZES[size], locale='en-US', **options)
    contexts.append(context)
    page = context.new_page()
    page.on('request', lambda request: requests.append(request.url))
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.set_default_timeout(_MOST)
    page.goto(url)
    expect(page, '#model').not_to_be_empty()
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert requests and all(url.startswith(('http://127.0.0.1:', 'data:')) for url in requests)
  assert errors == []


def summarize(page, text):
  page.fill('#source', text)
  page.click('#go')
  page.wait_for_selector('#facts', state='visible')
  return page.inner_text('#text')


def test_a_pasted_text_is_summarized_and_the_page_says_how_much_was_read_and_cut(open_page, shipped):
  page = open_page(shipped.url)
  text = summarize(page, TEXT)
  expected = shipped.post('/v1/summaries', text=TEXT)[1]
  assert text == expected['summary']
  assert re.fullmatch(r'\d+ tokens in \d+\.\d s · [\d,.]+ tokens a second', page.inner_text('#speed'))
  read, cut = expected['usage']['prompt_tokens'], expected['usage']['dropped_tokens']
  assert page.inner_text('#read').startswith(
    f'Read {read} of {read + cut} tokens ({round(100 * read / (read + cut))}%).'
  )
  assert f'{cut} tokens, was cut' in page.inner_text('#read')


def test_options_change_what_is_written(open_page, shipped):
  page = open_page(shipped.url)
  page.click('summary')
  page.select_option('#task', 'fix')
  page.fill('#max_tokens', '3')
  assert page.inner_text('#go') == 'Fix'
  expected = shipped.post('/v1/summaries', text='teh libary', task='fix', max_tokens=3)[1]
  assert summarize(page, 'teh libary') == expected['summary']
  assert 'ended at the limit of length' in page.inner_text('#speed')


def test_a_text_grows_and_the_stop_button_ends_it(open_page, endless):
  page = open_page(endless.url)
  page.fill('#source', 'Red tree.')
  page.keyboard.press('Control+Enter')
  expect(page, '#text').not_to_be_empty()
  first = page.text_content('#text')
  expect(page, '#text').not_to_have_text(first)
  assert page.get_attribute('#result', 'aria-busy') == 'true'
  page.click('#stop')
  page.wait_for_selector('#go', state='visible')
  assert page.inner_text('#news') == 'Stopped.' and page.text_content('#text').startswith(first)
  endless.wait_for('terraformer_running', 0)


def test_an_uploaded_pdf_is_summarized(open_page, shipped):
  page = open_page(shipped.url)
  with page.expect_file_chooser() as chooser:
    page.click('#choose')
  line = 'Foobar is a library for reading audio files.'
  chooser.value.set_files({'name': 'paper.pdf', 'mimeType': 'application/pdf', 'buffer': pdf(line, 'The end.')})
  assert page.inner_text('#file-name') == 'paper.pdf'
  page.click('#go')
  page.wait_for_selector('#facts', state='visible')
  assert page.inner_text('#text') == shipped.post('/v1/summaries', text=f'{line}\n\nThe end.')[1]['summary']
  assert 'of a PDF of 2 pages' in page.inner_text('#read')
  assert page.inner_text('#list').startswith(page.inner_text('#text')) and 'paper.pdf' in page.inner_text('#list')


def test_a_dropped_broken_file_is_explained(open_page, shipped):
  page = open_page(shipped.url)
  page.evaluate("""() => {
    const data = new DataTransfer();
    data.items.add(new File(['%PDF-1.4 broken'], 'broken.pdf'));
    document.dispatchEvent(new DragEvent('drop', {dataTransfer: data}));
  }""")
  page.click('#go')
  expect(page, '#alarm').to_have_text('The PDF is damaged and cannot be read.')
  page.click('#remove')
  assert page.inner_text('#alarm') == '' and page.is_visible('#source')


def test_recent_summaries_stay_after_a_reload_until_they_are_cleared(open_page, shipped):
  page = open_page(shipped.url)
  texts = [summarize(page, text) for text in (TEXT, 'A tool that converts images.')]
  page.reload()
  assert [each.inner_text() for each in page.query_selector_all('#list .whole')] == texts[::-1]
  page.click('#list li:last-child button')
  assert page.inner_text('#text') == texts[0]
  page.click('#clear')
  page.reload()
  assert page.is_hidden('#recent')


def test_errors_are_words(open_page, shipped):
  page = open_page(shipped.url)
  page.click('#go')
  assert page.inner_text('#alarm') == 'There is no text yet. Paste one, or choose a file.'
  page.fill('#source', 'Red tree.')
  page.route('**/v1/summaries', lambda route: route.fulfill(status=429, headers={'Retry-After': '7'}, body='{}'))
  page.click('#go')
  expect(page, '#alarm').to_have_text('Many others are waiting. Try again in 7 seconds.')
  page.route('**/v1/summaries', lambda route: route.abort())
  page.click('#go')
  expect(page, '#alarm').to_have_text('The server does not answer. It may have ended; try again in a moment.')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('size', SIZES)
def test_the_page_is_accessible_and_fits(open_page, shipped, size, scheme):
  page = open_page(shipped.url, size, color_scheme=scheme)
  page.click('summary')
  page.click('#go')  # shows an error
  for _ in range(2):
    found = axe.Axe().run(page).response['violations']
    assert [(each['id'], each['impact']) for each in found] == []
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    summarize(page, TEXT)


def test_all_of_the_page_is_reached_by_keyboard_in_order(open_page, shipped):
  page = open_page(shipped.url)
  order = []
  for _ in range(5):
    page.keyboard.press('Tab')
    order.append(page.evaluate('document.activeElement.id || document.activeElement.tagName'))
  assert order == ['source', 'choose', 'go', 'SUMMARY', 'A']
