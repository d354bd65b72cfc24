"""What stands in outputs: nothing of a patient, and no name that a page would carry out."""

from __future__ import annotations

import html.parser
import json
import shutil
import subprocess
from pathlib import Path

from reliability.bundles import make_bundle
from reliability.row import NotPossibleError, Settings, Tally, tumorseg
from tumorseg_runtime.conformance.scenes import scene

MARK = "Zyxwv"  # in each value of a patient
TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "AS", "DA", "DT", "TM")
NAMES = (
    "<script>document.title='ran'</script>", '"><img src=x onerror="document.title=`ran`">',
    "' onmouseover='document.title=`ran`' autofocus onfocus='document.title=`ran`'",
    "</title><svg onload=document.title='ran'>", "{{7*7}}", "{% include 'x' %}",
    "javascript:document.title='ran'", "a&lt;script&gt;", "\u202egnp.x", "tab\t\x1b[31m",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def patients(settings: Settings, tally: Tally) -> None:
    """DICOM files with every text element of the standard set, whole and damaged: none of it comes out."""
    try:
        from pydicom.datadict import DicomDictionary
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    except ModuleNotFoundError as error:
        raise NotPossibleError("pydicom is not installed") from error
    root, images, draw = (
        make_bundle(settings.folder / "bundle"),
        settings.folder / "in",
        settings.draw("patient"),
    )
    images.mkdir()
    dates = {"DA": "19010203", "TM": "010203", "DT": "19010203010203", "AS": "099Y"}
    for number in range(settings.count(30, 600)):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for tag, (kind, multiplicity, _, _, keyword) in DicomDictionary.items():
            fits = kind in TEXTS and keyword and tag >> 16 in (0x08, 0x10, 0x18, 0x20, 0x32, 0x38, 0x40)
            if fits and draw.random() < 0.5 and multiplicity[0] == "1":
                setattr(dataset, keyword, dates.get(kind, MARK))
                tally.add("elements with a mark")
        pixels = scene(40 + number % 30, 60)
        for keyword, value in (
            ("SpecificCharacterSet", "ISO_IR 100"), ("Rows", len(pixels)), ("Columns", 60),
            ("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2"), ("BitsAllocated", 8),
            ("BitsStored", 8), ("HighBit", 7), ("PixelRepresentation", 0), ("Modality", "OT"),
            ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), ("SOPInstanceUID", generate_uid()),
            ("PixelData", pixels.tobytes() + bytes(pixels.size % 2)),
        ):  # fmt: skip
            setattr(dataset, keyword, value)
        for keyword in ("BurnedInAnnotation", "ImageType", "PresentationLUTShape", "VOILUTFunction"):
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset["PixelData"].VR = "OB"
        path = images / f"{number:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        if number % 2:  # a damage quotes what it meets
            data = bytearray(path.read_bytes())
            for _ in range(draw.choice((1, 3, 20))):
                data[draw.randrange(132, len(data))] = draw.randrange(256)
            path.write_bytes(data)
        tally.add("files")
    out = settings.folder / "out"
    done = tumorseg("predict", root, images, "--out", out, "--overlays", "--probabilities", "--json")
    tally.demand(done.returncode in (0, 1, 2), f"exit status {done.returncode}: {done.stderr[-300:]}")
    masks = len(list((out / "masks").rglob("*.png")))
    tally.add("masks", masks)
    tally.demand(
        masks >= len(list(images.iterdir())) // 3, f"only {masks} files were read: {done.stderr[-300:]}"
    )
    texts = {"standard output": done.stdout.encode(), "standard error": done.stderr.encode()}
    texts |= {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name, text in texts.items():
        for value in (MARK, "19010203", "099Y"):
            at = text.find(value.encode())
            tally.demand(at < 0, f"{name} holds {text[max(0, at - 60) : at + 40]!r}")
    tally.add("outputs searched", len(texts))


class Scripts(html.parser.HTMLParser):
    """Scripts, handlers and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name.startswith("on") or str(value).strip().lower().startswith("javascript:"):
                self.found.append(f"<{tag} {name}={value!r}>")
            if tag in ("img", "svg") and value == "x":
                self.found.append(f"<{tag} {name}={value!r}>")


def pages(settings: Settings, tally: Tally) -> None:
    """Pages of commands on data whose every name is hostile: as many scripts as without, no handler."""
    from tumorseg_train.data.phantoms import write_phantoms

    counts, browser = [], next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        tally.add("browsers here", 0)  # the parser alone has looked
    for hostile in (False, True):
        data = settings.folder / f"data {hostile}"
        write_phantoms(data, brain=14, breast=24, seed=3)
        for number in range(1, 15 if hostile else 0):
            name = f"{number} {NAMES[number % len(NAMES)]}.png".replace("/", "∕")
            for folder in ("images", "masks"):
                (data / "brain" / folder / f"{number}.png").rename(data / "brain" / folder / name)
                twin = data / "brain" / folder / f"x {name}"  # a finding of the audit, which names both
                twin.write_bytes((data / "brain" / folder / name).read_bytes())
        prepared = tumorseg("data", "prepare", data, "--split", "random")
        tally.demand(prepared.returncode == 0, f"prepare: {prepared.stderr[-300:]}")
        page = settings.folder / f"audit {hostile}.html"
        done = tumorseg("data", "audit", data, "--split", data / "split.json", "--out", page)
        tally.demand(done.returncode in (0, 1) and page.is_file(), f"audit: {done.stderr[-300:]}")
        said = prepared.stderr + prepared.stdout + done.stderr + done.stdout
        tally.demand("\x1b" not in said and "\u202e" not in said, f"a terminal obeys a name: {said[-300:]!r}")
        evaluation = settings.folder / f"evaluation {hostile}.json"
        _evaluation(evaluation, hostile)
        compared = settings.folder / f"compare {hostile}"
        done = tumorseg("compare", evaluation, "--scale", "512", "--out", compared)
        tally.demand(done.returncode in (0, 1), f"compare: {done.stderr[-300:]}")
        written = [page, *compared.rglob("*.html")]
        tally.demand(len(written) > 1, "compare wrote no page")
        for path in filter(Path.is_file, written):
            parser, text = Scripts(), path.read_text(encoding="utf-8")
            parser.feed(text)
            tally.add("hostile names written as text", text.count("&lt;script&gt;document"))
            counts.append((path.name.split()[0], parser.scripts))
            tally.add("pages")
            for found in parser.found:
                tally.fault(f"{path.name}: {found}")
            if browser:
                tally.add("pages opened in a browser")
                tally.demand("<title>ran" not in _after_scripts(browser, path), f"{path.name}: a script ran")
    for name in {name for name, _ in counts}:
        scripts = {number for one, number in counts if one == name}
        tally.demand(len(scripts) == 1, f"{name}: {scripts} scripts with plain and with hostile names")
    tally.add("hostile names", len(NAMES))
    tally.demand(tally.counts["hostile names written as text"] > 0, "no page shows a hostile name")


def _after_scripts(browser: str, page: Path) -> str:
    """The page as it is when its scripts have run."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [browser, *flags, profile, page.as_uri()], capture_output=True, text=True, timeout=300, check=False
    )
    if "</html>" not in done.stdout:
        raise AssertionError(f"{browser} opened no page: {done.stderr[-300:]}")
    return done.stdout


def _evaluation(path: Path, hostile: bool) -> None:
    """A report of an evaluation, as a stranger may send one."""
    source = Path(__file__).parents[2] / "docs/results/cpu-128/unet.json"
    values = json.loads(source.read_text())
    if hostile:
        values["predictor"]["name"] = " ".join(NAMES)
        values["notes"] = list(NAMES)
        for number, stratum in enumerate(one for of in values["strata"].values() for one in of):
            stratum["name"] = NAMES[number % len(NAMES)]
        for number, image in enumerate(values["images"]):
            image["image"] = f"{NAMES[number % len(NAMES)]}{image['image']}"
    path.write_text(json.dumps(values))
