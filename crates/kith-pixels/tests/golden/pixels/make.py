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

# The same picture stored on its side, with an orientation of 6 (turn it by 90 degrees clockwise) in each container's own place.
# `upright.png` is what all of them show; it comes first, so that the others follow from it.
upright = Image.open(HERE / "upright.png").convert("RGB")
lying = upright.transpose(Image.Transpose.ROTATE_90)
exif = Image.Exif()
exif[0x0112] = 6
lying.save(HERE / "orientation-6.png", exif=exif, optimize=True)
lying.save(HERE / "orientation-6.jpg", exif=exif, quality=95, subsampling=0)
lying.save(HERE / "orientation-6.tif", tiffinfo={0x0112: 6}, compression="tiff_lzw")
lying.save(HERE / "orientation-6.webp", exif=exif, lossless=True)

upright.save(HERE / "plain.qoi")
upright.save(HERE / "deflate.tif", compression="tiff_adobe_deflate")
upright.convert("CMYK").save(HERE / "cmyk.tif", compression="tiff_lzw")

# Nothing to see: every pixel is fully transparent.
clear = Image.new("RGBA", SIZE, (*RED, 0))
clear.save(HERE / "transparent.png", optimize=True)
clear.save(HERE / "transparent.webp", lossless=True, exact=True)


def without_segments(data, marker):
    """A JPEG without its segments of one kind before the first scan."""
    kept, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            kept += data[at:end]
        at = end
    return bytes(kept + data[at:])


# A frame of a Motion JPEG: the Huffman tables are the standard's and are left out.
photo.save(HERE / "with-tables.jpg", quality=80)
whole = (HERE / "with-tables.jpg").read_bytes()
(HERE / "mjpeg-frame.jpg").write_bytes(without_segments(whole, 0xC4))
