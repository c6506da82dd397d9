"""Where the images of a run come from, whether all are there, and which questions share one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from medxpertqa.engine.messages import Images
from medxpertqa.errors import DataError
from medxpertqa.images import LARGEST, ImageStore, image_clusters
from medxpertqa.questions import Question
from medxpertqa.synthetic import synthetic_images

_MEGABYTE = 2**20
_MOST_BYTES = {"anthropic": 5 * _MEGABYTE, "google": 20 * _MEGABYTE, "openai": 50 * _MEGABYTE}
"""What providers take as one image, by the first part of inspect-ai's name of a model."""


def image_source(
    given: Images | str | os.PathLike[str] | None, name: str, data: str | os.PathLike[str] | None
) -> Images | None:
    """What gives the images: a function, a ZIP or a folder; else those that belong to a named set.

    The images of the test set come from the hub (517 MB, fetched if they are not in its cache). None if there
    is nowhere to take them from. Raises `DataError` for a ZIP that is none, and if the hub is out of reach.
    """
    if given is not None:
        return given if callable(given) else ImageStore(given)
    if data is not None:
        return None
    if name == "synthetic/mm":
        return ImageStore(synthetic_images())
    return ImageStore.from_hub() if name.partition("/")[0] == "mm" else None


def check_images(questions: Iterable[Question], images: Images | None, model: str) -> None:
    """Raise `DataError`, naming question, image and remedy, for an image that could not be sent to the model.

    Of a function that gives images nothing can be known before it is called.
    """
    shown = [question for question in questions if question.images]
    if shown and images is None:
        raise DataError(
            f"{shown[0].id} has images, and there is nowhere to take them from; give images.zip or a folder "
            "with --images, or leave them out with --ablate images"
        )
    if isinstance(images, ImageStore):
        images.check(shown, max_bytes=_MOST_BYTES.get(model.partition("/")[0], LARGEST))


def shared_images(questions: Sequence[Question], images: Images | None) -> dict[str, str]:
    """The cluster of each question that shares the bytes of an image with another one, by id."""
    if not isinstance(images, ImageStore):
        return {}
    there = [q for q in questions if q.images and all(name in images for name in q.images)]
    clusters = image_clusters(there, images)
    sizes = Counter(clusters.values())
    return {name: cluster for name, cluster in clusters.items() if sizes[cluster] > 1}
