"""Components of a volume against scipy's, which labels it as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tumorseg_runtime.processing.lesions_3d import Components

AFFINE = np.array(((0, -0.5, 0, 10), (0.5, 0, 0, -20), (0, 0, 3, 5), (0, 0, 0, 1)), np.float64)


@pytest.mark.parametrize("share", [0.02, 0.08, 0.2, 0.5])
def test_components_are_those_of_the_whole_volume(share: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed (extra train)")
    mask = np.random.default_rng(int(share * 100)).random((14, 11, 9)) < share  # (i, j, k)
    mask[:, :, 4] = False  # nothing joins across an empty slice
    components = Components()
    for index in range(mask.shape[2]):
        components.add(mask[:, :, index].T)
    lesions = components.lesions("tumour", AFFINE)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    expected = []
    for label in range(1, count + 1):
        places = np.argwhere(labels == label)
        low = places.min(axis=0)
        expected.append((len(places), (*low, *(places.max(axis=0) - low + 1)), tuple(places.mean(axis=0))))
    found = [(lesion.voxels, lesion.box, lesion.centroid) for lesion in lesions]
    expected.sort(key=lambda one: (-one[0], one[1]))
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    np.testing.assert_allclose([one[2] for one in found], [one[2] for one in expected])
    for lesion in lesions:
        assert lesion.volume_mm3 == pytest.approx(lesion.voxels * 0.75)
        np.testing.assert_allclose(lesion.centroid_mm, (AFFINE @ (*lesion.centroid, 1))[:3])


def test_nothing_is_no_lesion() -> None:
    components = Components()
    components.add(np.zeros((5, 6), np.bool_))
    assert components.lesions("tumour", AFFINE) == ()
