"""The image files of a folder, by the names of the formats that kith decodes."""

from pathlib import Path

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".qoi", ".tif", ".tiff", ".webp"}


def image_files(folder: str | Path) -> list[Path]:
    """In it and its sub-folders, sorted. Ends the program if there is none."""
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise SystemExit(f"there is no image file in {folder}")
    return found
