"""JPEGs small enough for a thousand images on one page."""

import io

from PIL import Image

# A thousand images of this size are 23.4 MB as base64. Photographs of 224² pixels take 14 kB on
# average at the first quality, and one in ten exceeds this size; noise needs quality 30.
MOST_BYTES = 17_500
QUALITIES = (85, 75, 60, 45, 30, 20, 10, 5)


def encode(image):
  """Encodes an image as JPEG with the best quality that fits into `MOST_BYTES`.

  Images that do not fit at any quality, such as 1000² pixels of noise, get the lowest.

  Args:
    image: (height, width, 3) uint8.

  Returns:
    The bytes of the file.
  """
  for quality in QUALITIES:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True)
    if file.tell() <= MOST_BYTES:
      break
  return file.getvalue()
