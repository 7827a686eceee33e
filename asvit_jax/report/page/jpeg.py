"""Images small enough that a thousand go into one page."""

import io

from PIL import Image

# A thousand of these are 23.4 MB as base64. Photographs of 224² pixels take 14 kB on average at the
# first quality and reach this size in one case of ten; noise goes down to 30.
MOST_BYTES = 17_500
QUALITIES = (85, 75, 60, 45, 30, 20, 10, 5)


def encode(image):
  """A (height, width, 3) uint8 image as JPEG, of the best quality that takes `MOST_BYTES` or less.

  An image that none makes so small, as one of 1000² pixels of noise, gets the last.

  Returns:
    The bytes of the file.
  """
  for quality in QUALITIES:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True)
    if file.tell() <= MOST_BYTES:
      break
  return file.getvalue()
