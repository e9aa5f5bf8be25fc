"""The page: the same comparison as one HTML file that needs nothing else, for browsers light and dark.

    html = render_page(comparisons, heading="...", setting="...", summary=[], pictures={"light": webp, "dark": webp})

Everything that a model wrote is escaped; a content security policy keeps the page from loading or running anything.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from steer_asr_benchmarks.demo.compare import Comparison, dropped_by_rule
from steer_asr_benchmarks.demo.table import (
    MAX_TEXT,
    NOTHING,
    RULE_MARK,
    RULE_NOTE,
    probability,
    shortened,
    strongest_features,
)

STRIP_POINTS = 160
CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --faint: #59626d; --line: #d9dee3; --band: #f5f7f9;
  --kept: #00609a; --removed: #b04300; --edit: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e8ebee; --faint: #a3adb8; --line: #323a43;
  --band: #1b2128; --kept: #6bc0f0; --removed: #ff9c5f; --edit: #f0762b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.2rem; }
p { max-width: 54rem; margin: .5rem 0; }
.setting, .note { color: var(--faint); }
.note { font-size: .9rem; }
.scroll { overflow-x: auto; }
table { width: 100%; min-width: 58rem; border-collapse: collapse; font-size: .95rem; }
th, td { padding: .8rem .9rem .8rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { padding-top: .4rem; border: 0; border-bottom: 2px solid var(--ink); color: var(--faint); font-size: .85rem;
  font-weight: 600; }
tbody tr:first-child > * { border-top: 0; }
tbody th { width: 16rem; font-weight: 600; }
tbody th .said { display: block; margin: .1rem 0 .4rem; color: var(--faint); font-size: .85rem; font-weight: 400; }
td.text { width: 28%; overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.nothing { color: var(--faint); font-style: italic; }
.removed { color: var(--removed); text-decoration: underline; text-decoration-style: wavy;
  text-decoration-thickness: 1px; text-underline-offset: .25em; }
audio { display: block; width: 100%; max-width: 15rem; height: 2.25rem; }
.strip { display: block; margin-top: .35rem; width: 9rem; height: 1.1rem; background: var(--band); }
.strip path { fill: var(--edit); }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"


def render_page(
    comparisons: Sequence[Comparison],
    *,
    heading: str,
    setting: str,
    summary: Sequence[str],
    pictures: Mapping[str, bytes],
) -> str:
    """The whole page. `pictures` holds WebP files for a "light" and a "dark" background."""
    rows = "\n".join(_row(comparison) for comparison in comparisons)
    note = f'<p class="note">{escape(RULE_NOTE)}.</p>' if any(dropped_by_rule(c.stock) for c in comparisons) else ""
    said = "\n".join(f"<p>{escape(sentence)}</p>" for sentence in summary)
    light, dark = (_data_uri(pictures[theme], "image/webp") for theme in ("light", "dark"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(heading)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(heading)}</h1>
<p class="setting">{escape(setting)}</p>
{said}
</header>
<main>
<section aria-labelledby="clips">
<h2 id="clips">Every clip</h2>
<div class="scroll" role="region" aria-labelledby="clips" tabindex="0">
<table>
<thead><tr>
<th scope="col">Clip</th><th scope="col">Stock Whisper</th><th scope="col">Steered</th>
<th scope="col">Nobody speaks</th><th scope="col">Edited</th>
</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<p class="note"><span class="removed">Underlined</span>: only stock wrote it. Nobody speaks: the gate's probability, one
for each window that was encoded. Edited: mean weight of the edit over the clip's frames, its course over time, and the
features it moved most.</p>
{note}
</section>
<section aria-labelledby="where">
<h2 id="where">Where it acts</h2>
<figure>
<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">
<img src="{light}" alt="{escape(_picture_in_words(comparisons))}"></picture>
</figure>
</section>
</main>
</body>
</html>
"""


def _row(comparison: Comparison) -> str:
    clip = comparison.clip
    said = f"Said: {clip.text}" if clip.text else "Nobody speaks"
    kind = mimetypes.guess_type(clip.audio_path)[0] or "audio/flac"  # which not every Python knows
    audio = _data_uri(clip.audio_path.read_bytes(), kind)
    windows = "<br>".join(probability(window) for window in comparison.report.windows)
    mark = f" {RULE_MARK}" if dropped_by_rule(comparison.stock) else ""
    return f"""<tr>
<th scope="row">{escape(clip.label)}<span class="said">{escape(said)}</span>
<audio controls preload="metadata" src="{audio}" aria-label="{escape(clip.label)}"></audio></th>
<td class="text">{_stock_text(comparison)}{mark}</td>
<td class="text">{_text(comparison.steered_text)}</td>
<td class="number">{windows}</td>
<td class="number">{comparison.edit_weights.mean():.0%}{_strip(comparison)}
<span class="note">features: {escape(strongest_features(comparison))}</span></td>
</tr>"""


def _stock_text(comparison: Comparison) -> str:
    """The stock text with what steering left out marked."""
    whole = comparison.stock_text
    if len(whole) > MAX_TEXT:
        cut = escape(shortened(whole))
        return f'<span class="removed">{cut}</span>' if not comparison.steered_text else cut
    parts = (
        f'<span class="removed">{escape(segment.text.strip())}</span>'
        if comparison.only_in_stock(segment)
        else escape(segment.text.strip())
        for segment in comparison.stock
        if segment.text.strip()
    )
    return " ".join(parts) or _text("")


def _text(text: str) -> str:
    return escape(shortened(text)) if text else f'<span class="nothing">{NOTHING}</span>'


def _strip(comparison: Comparison) -> str:
    """The edit weight over time as a small filled curve; the number beside it says the same to a screen reader."""
    chunks = np.array_split(comparison.edit_weights, min(STRIP_POINTS, len(comparison.edit_weights)))
    heights = [float(chunk.mean()) for chunk in chunks]
    steps = "".join(f"V{1 - height:.3f}H{i + 1}" for i, height in enumerate(heights))
    return (
        f'<svg class="strip" viewBox="0 0 {len(heights)} 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="M0 1{steps}V1Z"/></svg>'
    )


def _picture_in_words(comparisons: Sequence[Comparison]) -> str:
    return " ".join(
        f"{c.clip.label}: log-mel spectrogram of {c.duration_s:.0f} seconds, the edit's weight over time, and on the "
        f"same axis the stock transcript ({shortened(c.stock_text)}) and the steered one ({shortened(c.steered_text)})."
        for c in comparisons
    )


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
