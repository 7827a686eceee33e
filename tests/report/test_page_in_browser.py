"""The page in a real browser, which reads it as a user's does."""

import re
import shutil

import numpy as np
import pages
import pytest

from asvit_jax.report.page import writing
from asvit_jax.report.page.contents import unpack_masks

pytestmark = pytest.mark.external

BROWSER = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Nothing that the browser itself would fetch or write.
QUIET = (
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)
PAGE = pages.page()
PICTURES = PAGE.gallery.pictures
COMPARED = ("lost", "won", "right", "wrong", "changed")


@pytest.fixture(scope="module")
def browser():
  """A headless Chromium, or Chrome."""
  driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
  if BROWSER is None:
    pytest.skip("there is no chromium, chromium-browser or google-chrome on the path")
  with driver.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=QUIET)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Address of a page with everything."""
  return writing.write(tmp_path_factory.mktemp("page"), PAGE).as_uri()


@pytest.fixture
def visit(browser):
  """Opens an address in a new window of a size; what was said and asked for must stay nothing."""
  windows, said = [], []

  def visit(address, width=1200, height=900, **options):
    window = browser.new_context(viewport={"width": width, "height": height}, **options)
    windows.append(window)
    page = window.new_page()
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: _note(said, request.url, address))
    page.goto(address)
    page.wait_for_selector("main[aria-busy=false]")
    return page

  visit.said = said
  yield visit
  for window in windows:
    window.close()
  assert said == []


def _note(said, url, address):
  if not url.startswith("data:") and url.split("#")[0] != address.split("#")[0]:
    said.append(f"request: {url}")


def shown(page):
  """The indices of the pictures of all cards, which come as one scrolls, in their order."""
  count = int(re.match(r"\d+", page.inner_text("#count"))[0])
  for _ in range(20):
    cards = page.eval_on_selector_all("#cards > li", "all => all.map(c => +c.dataset.index)")
    if len(cards) == count:
      return cards
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(50)
  raise AssertionError(f"{len(cards)} cards, and it says {count}")


def outcome(picture):
  right = picture.prediction == picture.label
  before = picture.dense[0] == picture.label
  return {(1, 1): "right", (0, 0): "wrong", (1, 0): "won", (0, 1): "lost"}[right, before]


def fits(picture, show):
  if show == "changed":
    return picture.prediction != picture.dense[0]
  return outcome(picture) == show


def indices(test):
  return [index for index, picture in enumerate(PICTURES) if test(picture)]


def kept_on(canvas, grid=pages.GRID):
  """(n,) bool: the patches of a canvas that show the red of `pages.picture`; and its stage."""
  pixels = canvas.evaluate(
    """(canvas, [rows, columns]) => {
      const { width, height } = canvas;
      const copy = new OffscreenCanvas(width, height).getContext('2d');
      copy.drawImage(canvas, 0, 0);
      const { data } = copy.getImageData(0, 0, width, height);
      const centre = (i) => Math.floor((i + 0.5) * width / columns);
      const start = (i) => 4 * (centre(Math.floor(i / columns)) * width + centre(i % columns));
      const n = rows * columns;
      return Array.from({ length: n }, (_, i) => [...data.slice(start(i), start(i) + 3)]);
    }""",
    grid,
  )
  return np.abs(np.array(pixels) - (200, 40, 40)).max(axis=1) < 12


def masks(picture):
  return unpack_masks(picture.keep, len(pages.STAGES), np.prod(pages.GRID))


def until(page, expression):
  """Waits for it to be true. Playwright's own way needs eval, which the page forbids."""
  for _ in range(100):
    if page.evaluate(expression):
      return
    page.wait_for_timeout(50)
  raise AssertionError(f"never true: {expression}")


def wait_painted(page, selector, stage):
  page.wait_for_selector(f"{selector}[data-stage='{stage}']")
  return page.query_selector(selector)


def test_names_are_shown_as_text(written, visit):
  page = visit(written)
  assert page.evaluate("window.hacked") is None
  assert page.query_selector("img") is None
  one_line = " ".join(pages.EVIL.split())
  assert " ".join(page.title().split()) == f"A page {one_line}"
  for place in ("#title", "#summary", "#tiles", ".keys", "table"):
    assert one_line in " ".join(page.text_content(place).split())
  of_evil_class = next(i for i, p in enumerate(PICTURES) if p.label == 4)
  name = page.text_content(f"li[data-index='{of_evil_class}'] b")
  assert name == pages.EVIL


def test_a_page_can_load_nothing(written, visit):
  page = visit(written)
  failed = page.evaluate("fetch('data:text/plain,x').then(() => false, () => true)")
  assert failed
  assert all("Content Security Policy" in text for text in visit.said) and visit.said
  visit.said.clear()


def by(key, down=False):
  return sorted(
    range(len(PICTURES)), key=lambda i: (-key(PICTURES[i]) if down else key(PICTURES[i]), i)
  )


def change(picture):
  first = {"lost": 0, "won": 1}.get(outcome(picture), 2 if fits(picture, "changed") else 3)
  return first, -abs(picture.dense[1] - picture.probability)


@pytest.mark.parametrize(
  ("sort", "expected"),
  [
    ("order", list(range(len(PICTURES)))),
    ("cheapest", by(lambda p: p.gmacs)),
    ("costliest", by(lambda p: p.gmacs, down=True)),
    ("unsurest", by(lambda p: p.probability)),
    ("surest", by(lambda p: p.probability, down=True)),
    ("changed", by(change)),
  ],
)
def test_sorting_changes_the_order(written, visit, sort, expected):
  page = visit(written)
  assert shown(page) == by(change)
  page.select_option("#sort", sort)
  assert shown(page) == expected


@pytest.mark.parametrize("show", COMPARED)
def test_a_filter_shows_exactly_its_images(written, visit, show):
  page = visit(written)
  button = page.locator("#shows button").nth(1 + COMPARED.index(show))
  expected = indices(lambda p: fits(p, show))
  assert 0 < len(expected) < len(PICTURES)
  assert button.locator("small").inner_text() == str(len(expected))
  button.click()
  assert sorted(shown(page)) == expected
  assert button.get_attribute("aria-pressed") == "true"
  page.click("#reset")
  assert len(shown(page)) == len(PICTURES)


# Two classes are called crane.
@pytest.mark.parametrize(("text", "label"), [("bee", 1), ("crane (3)", 3), (pages.EVIL, 4)])
def test_filtering_by_class(written, visit, text, label):
  page = visit(written)
  offered = page.eval_on_selector_all("#classes option", "all => all.map(o => o.value)")
  assert text in offered and len(offered) == len(pages.CLASSES)
  page.fill("#class", text)
  assert sorted(shown(page)) == indices(lambda p: p.label == label)
  page.fill("#class", text[:2])  # half a name filters nothing yet
  assert len(shown(page)) == len(PICTURES)


def test_filters_go_together_and_counts_follow(written, visit):
  page = visit(written)
  page.fill("#class", "ant")
  page.fill("#query", "IMAGE_1")
  among = indices(lambda p: p.label == 0 and "image_1" in p.file)
  assert sorted(shown(page)) == among
  counts = page.eval_on_selector_all("#shows small", "all => all.map(s => +s.textContent)")
  assert counts == [len(among)] + [sum(fits(PICTURES[i], s) for i in among) for s in COMPARED]


def test_where_nothing_fits_it_says_so(written, visit):
  page = visit(written)
  assert not page.is_visible("#empty")
  page.fill("#query", "nowhere to be found")
  assert page.is_visible("#empty") and shown(page) == []
  page.click("#reset")
  assert not page.is_visible("#empty")
  assert page.input_value("#query") == ""


def test_a_bar_of_the_histogram_shows_the_images_that_cost_so_much(written, visit):
  page = visit(written)
  bars = page.locator(".bin[tabindex='0']")
  seen = []
  for i in range(bars.count()):
    low, high = map(float, bars.nth(i).get_attribute("data-bin").split("-"))
    bars.nth(i).press("Enter")
    of_bar = shown(page)
    seen += of_bar
    shares = [100 * PICTURES[j].gmacs / PAGE.gallery.dense_gmacs for j in of_bar]
    assert shares and all(low <= share < high for share in shares)
  assert sorted(seen) == list(range(len(PICTURES)))
  bars.nth(bars.count() - 1).click()  # again, and the filter is gone
  assert len(shown(page)) == len(PICTURES)


def test_cards_show_the_patches_of_the_stage_chosen(written, visit):
  page = visit(f"{written}#sort=order")
  for stage in (3, 1, 2, 0):
    page.click(f"#stages button >> nth={stage}")
    canvas = wait_painted(page, "li[data-index='1'] canvas", stage)
    expected = masks(PICTURES[1])[stage - 1] if stage else np.ones(np.prod(pages.GRID), bool)
    np.testing.assert_array_equal(kept_on(canvas), expected)
  counts = page.eval_on_selector_all("li[data-index='1'] em", "all => all.map(e => +e.textContent)")
  assert counts == masks(PICTURES[1]).sum(axis=1).tolist()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_card_opens_to_all_stages_side_by_side(written, visit, scheme):
  page = visit(f"{written}#sort=order&show=lost", color_scheme=scheme)
  order = shown(page)
  page.focus(f"li[data-index='{order[0]}'] button")
  page.keyboard.press("Enter")
  for place, index in enumerate(order[:2]):
    page.wait_for_selector(f"#viewer-place:text('{place + 1} of {len(order)}')")
    facts = page.inner_text("#viewer dl")
    assert PICTURES[index].file.rsplit("/")[-1].split(">")[0] in facts
    until(page, f"location.hash === '#sort=order&show=lost&open={index}'")
    page.wait_for_selector("#viewer canvas >> nth=3")
    until(page, "[...document.querySelectorAll('#viewer canvas')].every(c => c.dataset.stage)")
    canvases = page.query_selector_all("#viewer canvas")
    assert len(canvases) == 1 + len(pages.STAGES)
    for canvas, expected in zip(canvases[1:], masks(PICTURES[index]), strict=True):
      np.testing.assert_array_equal(kept_on(canvas), expected)
    page.keyboard.press("ArrowRight")
  page.keyboard.press("Escape")
  page.wait_for_selector("#viewer", state="hidden")
  until(page, "location.hash === '#sort=order&show=lost'")  # a dialog says later that it closed


def test_an_address_brings_the_same_view_back(written, visit):
  page = visit(written)
  page.select_option("#sort", "cheapest")
  page.click("#shows button >> nth=3")
  page.fill("#class", "bee")
  page.click("#stages button >> nth=1")
  again = visit(page.evaluate("location.href"))  # page.url may lag behind
  assert shown(again) == shown(page) != []
  assert again.input_value("#sort") == "cheapest" and again.input_value("#class") == "bee"
  assert again.get_attribute("#stages button >> nth=1", "aria-pressed") == "true"


def test_an_address_with_nonsense_is_as_if_it_were_not_there(written, visit):
  page = visit(f"{written}#sort=constructor&show=x&stage=9&class=nobody&cost=1-2&open=99999")
  assert shown(page) == by(change)


def test_the_table_sorts_by_the_column_pressed_and_empty_cells_stay_last(written, visit):
  page = visit(written)

  def column(index):
    return page.eval_on_selector_all(
      f"tbody td:nth-child({index})", "all => all.map(c => c.textContent)"
    )

  page.click("th button >> nth=1")
  assert column(2) == ["81.10", "78.10", "62.70"]
  page.click("th button >> nth=1")
  assert column(2) == ["62.70", "78.10", "81.10"]
  assert page.get_attribute("th >> nth=1", "aria-sort") == "ascending"
  page.click("th button >> nth=2")
  assert column(3) == ["1000", "900", "–"]
  page.click("th button >> nth=2")
  assert column(3) == ["900", "1000", "–"]


def test_curves_say_what_their_points_are_and_leave_at_the_legends_word(written, visit):
  page = visit(written)
  marks = "#charts .panel:first-child .mark[role=img]"
  labels = page.eval_on_selector_all(
    marks, "all => all.map(m => m.ariaLabel ?? m.getAttribute('aria-label'))"
  )
  assert len(labels) == 5
  assert "merge\ntop-1, %: 78.1\nshare, %: 50\nbudget 0.5" in labels
  page.hover(f"{marks} >> nth=0")
  assert page.inner_text("#tip").startswith("merge\n")
  page.click(".keys button >> nth=0")
  assert len(page.query_selector_all(marks)) == 3


@pytest.mark.parametrize(("merges", "word"), [(True, "merged into"), (False, "were dropped")])
def test_it_says_what_became_of_faded_patches(visit, tmp_path, merges, word):
  page = visit(writing.write(tmp_path, pages.page(3, merges=merges)).as_uri())
  assert word in page.inner_text("#legend")


def test_a_network_that_does_not_prune_has_no_stages(visit, tmp_path):
  dense = pages.page(compared=False)
  page = visit(writing.write(tmp_path, dense).as_uri())
  assert not page.is_visible("#stage-field") and not page.is_visible("#legend")
  assert shown(page) == list(range(len(PICTURES)))
  page.click("#shows button >> nth=2")
  pictures = dense.gallery.pictures
  assert shown(page) == [i for i, p in enumerate(pictures) if p.prediction != p.label]
  page.click(".card >> nth=0")
  assert len(page.query_selector_all("#viewer canvas")) == 1


@pytest.mark.parametrize("width", [320, 400, 800])
def test_a_narrow_window_needs_no_scrolling_sideways(written, visit, width):
  page = visit(written, width=width, is_mobile=True)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  page.click(".card >> nth=0")
  box = page.query_selector("#viewer").bounding_box()
  assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_cards_out_of_sight_hold_no_pixels(written, visit):
  page = visit(f"{written}#sort=order", height=400)
  first, width = "li[data-index='0'] canvas", "document.querySelector('#cards canvas').width"
  shown(page)  # scrolls to the end
  page.evaluate("document.querySelector('#cards').scrollIntoView()")
  wait_painted(page, first, 3)
  page.evaluate("scrollTo(0, document.body.scrollHeight)")
  until(page, f"{width} === 0")
  page.evaluate("document.querySelector('#cards').scrollIntoView()")
  wait_painted(page, first, 3)
  np.testing.assert_array_equal(kept_on(page.query_selector(first)), masks(PICTURES[0])[-1])


def test_a_thousand_images_of_noise_open_within_two_seconds(visit, tmp_path):
  path = writing.write(tmp_path, pages.page(1000, noisy=True))
  assert path.stat().st_size < 25e6
  seconds = []
  for _ in range(3):  # the best: what else the machine does is not the page's
    page = visit(path.as_uri())
    page.wait_for_selector("#cards canvas[data-stage]", state="attached")
    # On the page's own clock, from when its opening began to when its first images are painted.
    seconds.append(page.evaluate("performance.now()") / 1000)
  assert min(seconds) < 2
