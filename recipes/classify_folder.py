"""Classifies images by a folder with one sub-folder for each class: by the nearest neighbours, and by a linear probe.

    python classify_folder.py FOLDER                 the accuracy of both, by cross-validation
    python classify_folder.py FOLDER IMAGE...        what the images are

The neighbours are compared by the embedding. The probe is fitted to the features below it, which keep more of what the pairs did not ask for.
"""

import sys
from pathlib import Path

import numpy as np
from image_files import image_files
from kith_client import Kith, Layer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 5
FOLDS = 5

# Name, layer and classifier.
METHODS: list[tuple[str, Layer, object]] = [
    ("nearest neighbours", "embedding", KNeighborsClassifier(NEIGHBOURS, metric="cosine", weights="distance")),
    ("linear probe", "hidden", make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
]


def read(folder: Path) -> tuple[list[Path], np.ndarray]:
    """The images and their classes."""
    paths = [path for path in image_files(folder) if path.parent != folder]
    labels = np.array([path.relative_to(folder).parts[0] for path in paths])
    if len(set(labels)) < 2:
        raise SystemExit(f"{folder} has fewer than two sub-folders with images: one for each class is needed")
    return paths, labels


def main(folder: str, *images: str) -> None:
    paths, labels = read(Path(folder))
    with Kith() as kith:
        # One checkpoint for all of it.
        model = f"kith@{kith.models.get().checkpoint}"
        for name, layer, classifier in METHODS:
            features = kith.embed(paths, model=model, layer=layer).vectors
            if images:
                classifier.fit(features, labels)
                found = classifier.predict(kith.embed(images, model=model, layer=layer).vectors)
                for image, label in zip(images, found, strict=True):
                    print(f"{name}: {image} is {label}")
            else:
                folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
                scores = cross_val_score(classifier, features, labels, cv=folds)
                print(
                    f"{name}: {scores.mean():.3f} ± {scores.std() / np.sqrt(FOLDS):.3f} of {len(paths)} images in {len(set(labels))} classes"
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
