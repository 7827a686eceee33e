import base64
import dataclasses
import html.parser
import io
import json
import math
import re

import numpy as np
import pages
import pytest
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.report.page import jpeg, writing
from asvit_jax.report.page.contents import Page, Point, pack_masks, unpack_masks


class Elements(html.parser.HTMLParser):
  """The elements of a page as a browser would see them, with the text of its scripts."""

  def __init__(self, text):
    super().__init__()
    self.found, self.texts, self.inside = [], [], False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    self.texts.append("")
    self.inside = True

  def handle_endtag(self, tag):
    self.inside = False

  def handle_data(self, data):
    if self.inside:
      self.texts[-1] += data

  def of(self, tag):
    """[(attributes, text)] of the elements with a tag."""
    return [(a, t) for (name, a), t in zip(self.found, self.texts, strict=True) if name == tag]


@pytest.fixture(scope="module")
def text():
  return writing.render(pages.page())


@pytest.fixture(scope="module")
def elements(text):
  return Elements(text)


@pytest.mark.parametrize(("stages", "patches"), [(0, 196), (1, 9), (3, 196), (5, 64)])
def test_masks_come_back_as_they_went(stages, patches):
  keep = np.random.default_rng(stages).random((stages, patches)) < 0.5
  packed = pack_masks(keep)
  assert len(packed) <= 4 * math.ceil(stages * patches / 24)
  np.testing.assert_array_equal(unpack_masks(packed, stages, patches), keep)


def test_the_data_is_in_the_page_whatever_names_hold(elements):
  (given,) = [t for a, t in elements.of("script") if a.get("type") == "application/json"]
  data = json.loads(given)
  page = pages.page()
  assert data["title"] == page.title
  assert data["gallery"]["classes"] == {str(k): v for k, v in pages.CLASSES.items()}
  for picture, there in zip(page.gallery.pictures, data["gallery"]["pictures"], strict=True):
    assert there["file"] == picture.file
    assert base64.b64decode(there["jpeg"]) == picture.jpeg
    assert there["dense"] == list(picture.dense)


def test_names_make_no_elements(elements):
  assert [tag for tag, _ in elements.found if tag in ("img", "script")] == ["script"] * 2
  assert len(elements.of("title")) == 1
  assert elements.of("title")[0][1] == pages.page().title


def test_names_of_parts_in_the_data_are_left_alone():
  page = Page("{{DATA}} {{SCRIPT}}", summary=("{{STYLE}}",))
  (given,) = [
    t for a, t in Elements(writing.render(page)).of("script") if a.get("type") == "application/json"
  ]
  assert json.loads(given)["title"] == page.title
  assert json.loads(given)["summary"] == ["{{STYLE}}"]


def test_a_page_refers_to_nothing_outside_of_it(text, elements):
  without_data = re.sub(r'(?s)id="data">.*?</script>', "", text)
  assert set(re.findall(r"\w+://[^'\"\s]*", without_data)) == {"http://www.w3.org/2000/svg"}
  loading = [a for _, a in elements.found if "src" in a or a.get("href", "#")[0] != "#"]
  assert loading == []
  assert not re.search(r"@import|url\(", without_data)


def test_names_are_never_read_as_html():
  scripts = "".join(map(writing._asset, writing.SCRIPTS))
  assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", scripts)


def test_the_policy_allows_the_style_and_the_script_by_hash_and_nothing_else(elements):
  (policy,) = [a["content"] for a, _ in elements.of("meta") if "http-equiv" in a]
  rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
  assert rules["default-src"] == "'none'"
  (script,) = [t for a, t in elements.of("script") if not a]
  (style,) = [t for _, t in elements.of("style")]
  assert rules["script-src"] == f"'{writing._hash(script)}'"
  assert rules["style-src"] == f"'{writing._hash(style)}'"
  assert rules["img-src"] == "data:"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_become_null(value):
  assert json.loads(writing.as_data(Point(1.0, value))) == {"x": 1.0, "y": None, "note": ""}


def test_images_are_as_good_as_their_limit_allows():
  rng = np.random.default_rng(0)
  smooth = np.linspace(0, 255, 224 * 224 * 3).reshape(224, 224, 3).astype(np.uint8)
  assert len(jpeg.encode(pages.noise(rng))) <= jpeg.MOST_BYTES
  decoded = np.asarray(Image.open(io.BytesIO(jpeg.encode(smooth))), float)
  assert np.abs(decoded - smooth).mean() < 1.5


def test_a_thousand_images_of_noise_stay_below_25_mb(tmp_path):
  # Made once: what is measured is the page. All are of the size that noise has.
  gallery = pages.gallery(20, noisy=True)
  many = dataclasses.replace(gallery, pictures=gallery.pictures * 50)
  path = writing.write(tmp_path, dataclasses.replace(pages.page(1), gallery=many))
  assert len(many.pictures) == 1000
  assert 15e6 < path.stat().st_size < 25e6


def test_a_page_takes_the_place_of_the_one_before(tmp_path):
  first = writing.write(tmp_path / "new" / "report", Page("one")).read_text("utf-8")
  second = writing.write(tmp_path / "new" / "report", Page("two")).read_text("utf-8")
  assert "<title>one</title>" in first and "<title>two</title>" in second
  assert [p.name for p in (tmp_path / "new" / "report").iterdir()] == [writing.NAME]


def test_where_no_page_can_be_written_it_is_said_before(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to the report"):
    writing.check(tmp_path / "file" / "report")
