"""Opens pages in Chromium at both widths and themes, by keyboard too; runs in the environment of make_env.sh.

look.py PAGE.html... --axe axe.min.js [--shots FOLDER]: one JSON object, a list of faults by page.
"""

import argparse
import json
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

WIDTHS = (1400, 390)
THEMES = ("light", "dark")
CUT_OFF = """() => {
  const root = document.documentElement, width = root.clientWidth, faults = [];
  if (root.scrollWidth > width) faults.push(`the page is ${root.scrollWidth} wide`);
  for (const each of document.querySelectorAll("body *")) {
    if (each.closest(".scroll:not(.cards), .stage, .skip, svg") || !each.checkVisibility()) continue;
    const box = each.getBoundingClientRect();
    if (box.width && box.right > width + 1)
      faults.push(`${each.tagName} ${each.className} ends at ${box.right}`);
  }
  for (const each of document.querySelectorAll(".cards")) {
    if (each.scrollWidth > each.clientWidth + 1)
      faults.push(`the main table is ${each.scrollWidth} of ${each.clientWidth} wide`);
  }
  for (const svg of document.querySelectorAll(".chart svg")) {
    const frame = svg.getBoundingClientRect();
    if (!frame.width) continue;
    for (const each of svg.querySelectorAll("text")) {
      const box = each.getBoundingClientRect();
      if (box.right > frame.right + 3 || box.left < frame.left - 3)
        faults.push(`"${each.textContent.trim()}" of a chart lies beside it`);
    }
  }
  return faults;
}"""


def look(page: Page, file: Path, axe: str, width: int, theme: str, shots: Path | None) -> list[str]:
    """Faults of one page at one width and theme."""
    faults: list[str] = []
    page.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.goto(file.resolve().as_uri())
    if shots:
        page.screenshot(path=str(shots / f"{file.stem}-{width}-{theme}.png"), full_page=True)
    faults += [f"folded: {fault}" for fault in page.evaluate(CUT_OFF)]
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    faults += page.evaluate(CUT_OFF)
    if shots:
        page.screenshot(path=str(shots / f"{file.stem}-{width}-{theme}-open.png"), full_page=True)
    page.evaluate(f"() => {{ {axe} }}")
    found = page.evaluate("async () => (await axe.run()).violations")
    faults += [f"axe {one['id']}: {one['nodes'][0]['html'][:120]}" for one in found]
    return faults + keys(page)


def keys(page: Page) -> list[str]:
    """Sorting and the viewer by keyboard alone."""
    faults = []
    button = page.locator("thead button").first
    if button.count():
        button.focus()
        page.keyboard.press("Enter")
        if page.locator("thead th[aria-sort=ascending]").count() != 1:
            faults.append("Enter on a column's title does not sort")
        page.keyboard.press("Enter")
        if page.locator("thead th[aria-sort=descending]").count() != 1:
            faults.append("Enter again does not sort the other way round")
    if not page.locator(".viewer").count():
        return faults
    cases = page.locator(".case").count()
    page.locator(".case.current .stage").focus()
    place = page.locator("output[name=place]")
    for key, expected in (("ArrowRight", 2), ("n", 3), ("p", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        wanted = f"{(expected - 1) % cases + 1} of {cases}"
        if place.inner_text() != wanted:
            faults.append(f"after {key} the viewer is at '{place.inner_text()}', expected '{wanted}'")
    page.keyboard.press("+")
    if page.locator("output[name=zoom]").inner_text() != "2×":
        faults.append("+ does not zoom")
    page.keyboard.press("2")
    if page.locator(".case.current .layer.truth").evaluate("(e) => getComputedStyle(e).display") != "block":
        faults.append("2 does not show the truth")
    page.locator("[name=opacity]").focus()
    page.keyboard.press("End")
    if page.locator(".case.current .layer.truth").evaluate("(e) => getComputedStyle(e).opacity") != "1":
        faults.append("the slider does not set the opacity")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--axe", required=True, type=Path)
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    axe, found = given.axe.read_text(), {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for file in given.pages:
            faults = found.setdefault(file.name, [])
            for width in WIDTHS:
                for theme in THEMES:
                    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
                    faults += [
                        f"{width} {theme}: {one}" for one in look(page, file, axe, width, theme, given.shots)
                    ]
                    page.close()
            context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
            page = context.new_page()
            page.goto(file.resolve().as_uri())
            if given.shots:
                page.screenshot(path=str(given.shots / f"{file.stem}-390-without-script.png"), full_page=True)
            hidden = [each for each in page.locator(".case").all() if not each.is_visible()]
            faults += [f"without script {len(hidden)} cases are hidden"] if hidden else []
            context.close()
        browser.close()
    sys.stdout.write(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
