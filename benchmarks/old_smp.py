"""Networks of earlier versions of segmentation-models-pytorch, as `tumorseg export` reads them: same logits?

    .venv/bin/python benchmarks/old_smp.py build/old-smp

installs each version of VERSIONS beside this environment's torch (pip, without dependencies), lets it make
networks with their config and logits, and reads them back from the folder and from the state dict alone.
One line each, and exit status 1 where logits differ. What smp itself cannot make is left out and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

VERSIONS = {  # of smp, and what it asked for at the time
    "0.3.3": ("timm==0.9.2", "pretrainedmodels==0.7.4", "efficientnet-pytorch==0.7.1", "munch", "six"),
    "0.3.4": ("timm==0.9.7", "pretrainedmodels==0.7.4", "efficientnet-pytorch==0.7.1", "munch", "six"),
    "0.4.0": ("timm==1.0.12", "pretrainedmodels==0.7.4", "efficientnet-pytorch==0.7.1", "munch", "six"),
    "0.5.0": ("timm==1.0.15",),
}
CLASSES = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus",
    "UPerNet", "Segformer",
)  # fmt: skip
ENCODERS = (
    "timm-res2net50_26w_4s", "timm-resnest14d", "timm-mobilenetv3_small_100", "timm-mobilenetv3_large_100",
    "timm-mobilenetv3_small_minimal_100", "timm-gernet_s", "timm-regnety_002", "timm-efficientnet-b0",
    "timm-skresnet18", "timm-tf_efficientnet_lite0", "efficientnet-b0", "mobilenet_v2", "densenet121",
    "dpn68", "vgg11_bn", "se_resnet50", "inceptionv4", "xception", "mit_b0", "mobileone_s0",
    "tu-resnet18", "tu-convnext_atto",
)  # fmt: skip
NETWORKS: list[tuple[str, str, dict[str, object]]] = [
    *((kind, "resnet18", {}) for kind in CLASSES),
    *(("Unet", encoder, {}) for encoder in ENCODERS),
    ("Segformer", "mit_b0", {}),
    ("DPT", "tu-vit_tiny_patch16_224", {}),
    ("Unet", "resnet18", {"decoder_use_batchnorm": False}),
    ("PSPNet", "resnet18", {"psp_use_batchnorm": False}),
    ("PAN", "resnet18", {"encoder_depth": 4}),
    ("DeepLabV3", "resnet18", {"encoder_depth": 4}),
    ("FPN", "resnet18", {"encoder_depth": 4, "upsampling": 2, "decoder_merge_policy": "cat"}),
]
TOLERANCE = 1e-4  # of the logits' standard deviation


def say(line: str) -> None:
    """At once: the lines come from two processes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make(folder: Path) -> None:
    """In a process whose path begins with an old version: each network's folder, its images and logits."""
    import inspect

    import segmentation_models_pytorch as smp
    import torch

    for number, (kind, encoder, options) in enumerate(NETWORKS):
        try:
            torch.manual_seed(0)
            network = getattr(smp, kind)(encoder, encoder_weights=None, **options).eval()
            image = torch.randn(1, 3, *((224, 224) if kind == "DPT" else (128, 128)))
            with torch.inference_mode():
                logits = network(image)
        except (AttributeError, TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
            say(f"- {smp.__version__} {kind} {encoder} {options}: {str(error).partition(chr(10))[0][:90]}")
            continue
        to = folder / f"{number:02}-{kind}-{encoder}"
        to.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), to / "pytorch_model.bin")
        torch.save((image, logits), to / "seen.pt")
        if hasattr(network, "save_pretrained"):
            network.save_pretrained(str(to))
        else:
            parameters = inspect.signature(type(network).__init__).parameters.values()
            given = {one.name: one.default for one in parameters if one.default is not one.empty}
            config = {**given, **options, "encoder_name": encoder, "_model_class": kind}
            (to / "config.json").write_text(json.dumps(config))


def read(folder: Path) -> bool:
    """Read what `make` left; whether all logits are the same."""
    import torch

    from tumorseg_export.checkpoint.foreign import CheckpointOptions, open_foreign
    from tumorseg_runtime.core.errors import InputError

    right = True
    for one in sorted(folder.iterdir()):
        image, logits = torch.load(one / "seen.pt")
        encoder = json.loads((one / "config.json").read_text())["encoder_name"]
        for source, said in ((one, None), (one / "pytorch_model.bin", encoder)):
            flags = CheckpointOptions(
                encoder=said,
                images="phantoms",
                size=(image.shape[2], image.shape[3]),
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
            )
            try:
                with torch.inference_mode():
                    got = open_foreign(source, flags).load()(image)
            except InputError as reason:
                say(f"refused {folder.name} {one.name}: {str(reason)[:160]}")
                continue
            error = float((got - logits).abs().max() / logits.std())
            right &= error <= TOLERANCE
            verdict = "same" if error <= TOLERANCE else "DIFFERS"
            say(f"{verdict} {error:.1e} {folder.name} {one.name} {source.name}")
    return right


def main() -> None:
    warnings.simplefilter("ignore")
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
        return
    out = Path(sys.argv[1]).absolute()
    right = True
    for version, packages in VERSIONS.items():
        site, folder = out / f"site-{version}", out / version
        if not site.is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
            subprocess.run([*pip, f"segmentation-models-pytorch=={version}", *packages], check=True)
        if not folder.is_dir():
            subprocess.run(
                [sys.executable, __file__, "make", str(folder)],
                env={**os.environ, "PYTHONPATH": str(site)},
                check=True,
            )
        right &= read(folder)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
