"""Augmentation by Albumentations: geometry, distortion, crop, intensity. Of the training part only."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tumorseg_train.config.recipe import Recipe

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask a package registry for newer versions
import albumentations as A

UInt8Array = npt.NDArray[np.uint8]
DISTORTED_SHARE = 0.5
LESION_SHARE = 0.5  # of the crops are laid over a tumour, where the image has one


class Augmentation:
    """Random changes of an image and its mask, each draw a function of the seed that comes with it."""

    def __init__(self, recipe: Recipe) -> None:
        steps: list[Any] = [
            A.Affine(
                rotate=(-recipe.rotation, recipe.rotation),
                scale=(1 - recipe.zoom, 1 + recipe.zoom),
                translate_percent=(-recipe.translation, recipe.translation),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
            )
        ]
        if recipe.distortion:
            limits = (-recipe.distortion, recipe.distortion)
            steps.append(A.GridDistortion(distort_limit=limits, p=DISTORTED_SHARE))
        if recipe.flip:
            steps.append(A.HorizontalFlip(p=0.5))
        if recipe.crop:
            size = {"height": recipe.crop, "width": recipe.crop}
            steps.append(
                A.OneOf(
                    [
                        A.CropNonEmptyMaskIfExists(**size, p=LESION_SHARE),
                        A.RandomCrop(**size, p=1 - LESION_SHARE),
                    ],
                    p=1,
                )
            )
        if recipe.brightness or recipe.contrast:
            steps.append(
                A.RandomBrightnessContrast(
                    brightness_limit=(-recipe.brightness, recipe.brightness),
                    contrast_limit=(-recipe.contrast, recipe.contrast),
                    p=1,
                )
            )
        self._compose = A.Compose(steps)

    def __call__(self, image: UInt8Array, mask: UInt8Array, seed: int) -> tuple[UInt8Array, UInt8Array]:
        """uint8 image (H, W[, 3]) and mask (H, W) of 0 and 1 -> the same, changed, at the crop's size.

        Beyond the image's border lies black, and no tumour.
        """
        self._compose.set_random_seed(seed)
        changed = self._compose(image=image, mask=mask)
        return changed["image"], changed["mask"]
