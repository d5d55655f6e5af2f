"""Finds near-duplicates in a folder, and moves all but the largest of each group elsewhere.

    python deduplicate.py FOLDER                          says what it would do, and changes nothing
    python deduplicate.py FOLDER --move-to ELSEWHERE      does it; nothing is deleted

`--threshold` is the cosine from which two images are near-duplicates. Look at the plan first: what is near depends on what the encoder has learned.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from image_files import image_files
from kith_client import Kith
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Rows of the matrix of cosines at once, so that memory stays small.
ROWS = 1024


def groups(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Groups of two or more rows that are linked by cosines of at least `threshold`."""
    pairs = []
    for start in range(0, len(vectors), ROWS):
        row, column = np.nonzero(vectors[start : start + ROWS] @ vectors.T >= threshold)
        pairs.append(np.stack([row + start, column]))
    row, column = np.concatenate(pairs, axis=1)
    count, label = connected_components(coo_array((np.ones(len(row)), (row, column)), shape=(len(vectors),) * 2))
    found = [np.flatnonzero(label == number).tolist() for number in range(count)]
    return [group for group in found if len(group) > 1]


def size(path: Path) -> tuple[int, int]:
    """Pixels, then bytes: the larger is the better copy."""
    with Image.open(path) as image:
        return image.width * image.height, path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threshold", type=float, default=0.98)
    parser.add_argument("--move-to", type=Path)
    args = parser.parse_args()
    paths = image_files(args.folder)
    with Kith() as kith:
        vectors = kith.embed(paths, priority="bulk").vectors
    moved = 0
    for group in groups(vectors, args.threshold):
        best, *others = sorted((paths[index] for index in group), key=size, reverse=True)
        print(f"keep {best}")
        for other in others:
            cosine = vectors[paths.index(best)] @ vectors[paths.index(other)]
            print(f"  move {other} ({cosine:.3f})")
            moved += 1
            if args.move_to:
                target = args.move_to / other.relative_to(args.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(other, target)
    done = f"moved to {args.move_to}" if args.move_to else "would be moved: --move-to ELSEWHERE does it"
    print(f"{moved} of {len(paths)} images {done}")


if __name__ == "__main__":
    main()
