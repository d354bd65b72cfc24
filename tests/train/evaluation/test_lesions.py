import cv2
import numpy as np

from tumorseg_train.evaluation.lesions import LESION_IOU, Matches, match_lesions


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((40, 60), np.bool_)
    for top, left, height, width in corners:
        mask[top : top + height, left : left + width] = True
    return mask


def test_found_missed_and_made_up() -> None:
    truth = boxes((2, 2, 8, 8), (20, 2, 8, 8))
    predicted = boxes((3, 3, 8, 8), (20, 40, 5, 5), (35, 50, 1, 1))
    assert match_lesions(predicted, truth) == Matches(truth=2, predicted=3, matched=1)
    assert match_lesions(truth, truth) == Matches(2, 2, 2)
    nothing = boxes()
    assert match_lesions(nothing, truth) == Matches(2, 0, 0)
    assert match_lesions(predicted, nothing) == Matches(0, 3, 0)
    assert match_lesions(nothing, nothing) == Matches(0, 0, 0)


def test_one_blob_over_two_lesions_finds_one() -> None:
    truth = boxes((2, 2, 10, 10), (2, 14, 10, 10))
    assert match_lesions(boxes((2, 2, 10, 22)), truth) == Matches(truth=2, predicted=1, matched=1)


def test_a_touch_is_no_match_and_corners_connect() -> None:
    truth = boxes((0, 0, 10, 10))
    assert match_lesions(boxes((9, 9, 10, 10)), truth).matched == 0
    # IoU of exactly 0.1: 10 of 100 pixels
    assert match_lesions(boxes((0, 0, 1, 10)), truth).matched == 1
    assert match_lesions(boxes((0, 0, 1, 9)), truth).matched == 0
    assert match_lesions(boxes((0, 0, 5, 5), (5, 5, 5, 5)), truth) == Matches(1, 1, 1)


def test_as_a_slow_second_implementation() -> None:
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(30):
        a, b = (cv2.GaussianBlur(rng.random((40, 60)).astype(np.float32), (0, 0), 2) > 0.53 for _ in range(2))
        b |= a & (rng.random((1, 60)) < 0.7)
        found = match_lesions(np.asarray(a), np.asarray(b))
        lesions = []
        for mask in (b, a):
            count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            lesions.append([labels == i for i in range(1, count)])
        pairs = sorted(
            (
                (float((t & p).sum() / (t | p).sum()), i, j)
                for i, t in enumerate(lesions[0])
                for j, p in enumerate(lesions[1])
            ),
            reverse=True,
        )
        left: set[int] = set()
        right: set[int] = set()
        for iou, i, j in pairs:
            if iou >= LESION_IOU and i not in left and j not in right:
                left.add(i)
                right.add(j)
        assert found == Matches(len(lesions[0]), len(lesions[1]), len(left))
        total += len(left)
    assert total > 100  # the masks were worth comparing
