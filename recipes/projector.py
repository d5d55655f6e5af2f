"""Writes the vectors of a folder for TensorBoard's Projector: vectors.tsv, metadata.tsv, sprite.png and the file that names them.

    python projector.py FOLDER OUT
    tensorboard --logdir OUT

The first column of metadata.tsv is the sub-folder, by which the Projector can colour.
"""

import math
import sys
from pathlib import Path

import numpy as np
from image_files import image_files
from kith_client import Kith
from PIL import Image, ImageOps

# Pixels of the side of a thumbnail; the browser takes sprites of up to 8,192.
THUMBNAIL = 48
MAX_SPRITE = 8192
CONFIG = """embeddings {{
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def sprite(paths: list[Path], side: int) -> Image.Image:
    """All thumbnails in a square, row by row."""
    columns = math.ceil(math.sqrt(len(paths)))
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for index, path in enumerate(paths):
        with Image.open(path) as image:
            thumbnail = ImageOps.pad(ImageOps.exif_transpose(image).convert("RGBA"), (side, side), color="#ffffff00")
        sheet.paste(thumbnail, (index % columns * side, index // columns * side), thumbnail)
    return sheet


def main(folder: str, out: str) -> None:
    paths = image_files(folder)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    with Kith() as kith:
        found = kith.embed(paths, priority="bulk")
    np.savetxt(target / "vectors.tsv", found.vectors, fmt="%.6g", delimiter="\t")
    # A tab or a line break in a name would begin another cell.
    rows = [(path.parent.name, " ".join(path.name.split())) for path in paths]
    text = "".join(f"{folder}\t{name}\n" for folder, name in [("folder", "file"), *rows])
    (target / "metadata.tsv").write_text(text, encoding="utf-8")
    side = min(THUMBNAIL, MAX_SPRITE // math.ceil(math.sqrt(len(paths))))
    sprite(paths, side).save(target / "sprite.png")
    (target / "projector_config.pbtxt").write_text(CONFIG.format(side=side))
    print(f"{len(paths)} vectors of {found.model} are in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
