"""Makes the image files of this folder: kinds that the test's own encoder cannot write. Needs Pillow.

    python make.py
"""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
SIZE = (16, 16)
RED, GREEN, BLUE = (200, 40, 30), (20, 180, 60), (10, 60, 220)


def frames(mode):
    return [Image.new(mode, SIZE, (*colour, 255)[: len(mode)]) for colour in (RED, GREEN, BLUE)]


# Cyan 10 %, magenta 80 %, yellow 60 %, black 20 %: (0.9, 0.2, 0.4) x 0.8 of white in red, green and blue.
ink = tuple(round(255 * share) for share in (0.1, 0.8, 0.6, 0.2))
Image.new("CMYK", SIZE, ink).save(HERE / "cmyk.jpg", quality=95)

# Entry 0 is red, entry 1 green and transparent; the left half is red.
palette = Image.new("P", SIZE, 1)
palette.putpalette([*RED, *GREEN])
palette.paste(0, (0, 0, 8, 16))
palette.save(HERE / "palette.png", transparency=1, optimize=True)

# One bit a pixel: left half black.
bits = Image.new("1", SIZE, 1)
bits.paste(0, (0, 0, 8, 16))
bits.save(HERE / "one_bit.png", optimize=True)

first, *rest = frames("RGB")
first.save(HERE / "animated.gif", save_all=True, append_images=rest, duration=50, loop=0)
first.save(HERE / "animated.webp", save_all=True, append_images=rest, duration=50, lossless=True)

photo = Image.merge("RGB", [Image.radial_gradient("L").resize((64, 64)).rotate(turn) for turn in (0, 45, 90)])
photo.save(HERE / "progressive.jpg", quality=50, progressive=True)
