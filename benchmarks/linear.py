"""A linear classifier on raw pixels: the floor for any network on the same images.

python benchmarks/linear.py PATH        # a folder with train/<class>/* and val/<class>/*, or digits
"""

from __future__ import annotations

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastnas.data import load_data
from fastnas.data.dataset import ImageSplit


def pixels(split: ImageSplit) -> tuple[object, object]:
    images, labels = split.__getitems__(list(range(len(split))))
    return images.flatten(1).float().numpy() / 255, labels.numpy()


def main() -> None:
    data = load_data(sys.argv[1], None)
    # The strength of the penalty that suits CIFAR-10's pixels best among powers of ten.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=500))
    model.fit(*pixels(data.train))
    print(
        f"{sys.argv[1]}: {len(data.train)} training images, {100 * model.score(*pixels(data.val)):.1f} % of val correct"
    )


if __name__ == "__main__":
    main()
