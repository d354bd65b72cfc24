"""Write `docs/traceability.md` anew: `python -m claims`."""

from claims.page import PAGE, text

PAGE.write_text(text(), encoding="utf-8")
