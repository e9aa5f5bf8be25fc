"""The pages of the feature browser as HTML text: an index with a table, and pages of features.

They load nothing but their own pictures and sounds, work from a folder on a disk (file://), and hold no text from
manifests or reports that is not escaped. The only scripts are the two below, which the pages' policy names by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from steer_asr_training.analysis.inputs import FRAME_S
from steer_asr_training.analysis.tables import number, percent
from steer_asr_training.lab.excerpts import MEDIA, Excerpt

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #4477aa; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
a { color: LinkText; } .table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; white-space: nowrap; }
th button { font: inherit; font-weight: 600; border: 0; background: none; color: inherit; cursor: pointer; padding: 0; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
input { font: inherit; padding: .3rem .5rem; width: min(30rem, 100%); }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.clip { margin: 0; font-size: .8rem; } .clip figcaption { overflow-wrap: anywhere; }
.view { position: relative; height: 7rem; background: #000; overflow: hidden; }
.view img, .view svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.view polyline { fill: none; stroke: #4fe3ff; stroke-width: 2; vector-effect: non-scaling-stroke; }
.view .at { stroke: #fff; stroke-width: 1; vector-effect: non-scaling-stroke; }
audio { width: 100%; height: 2rem; } .stats { margin: .2rem 0 .8rem; } .quiet { opacity: .75; }
"""
SORT = """
const table = document.querySelector('table'), body = table.tBodies[0];
const value = (row, i) => {
  const cell = row.cells[i];
  return 'v' in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
};
table.tHead.addEventListener('click', event => {
  const head = event.target.closest('th'); if (!head) return;
  const falling = head.getAttribute('aria-sort') !== 'descending';
  for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
  const sign = falling ? -1 : 1, i = head.cellIndex;
  body.append(...[...body.rows].sort((a, b) => {
    const x = value(a, i), y = value(b, i);
    return sign * (typeof x === 'number' ? x - y : x.localeCompare(y));
  }));
});
document.querySelector('input').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const row of body.rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
"""
PLAY = """
document.addEventListener('timeupdate', event => {
  const line = event.target.closest('figure').querySelector('.at');
  const x = String(100 * (event.target.currentTime / event.target.duration || 0));
  line.setAttribute('x1', x); line.setAttribute('x2', x);
}, true);
document.addEventListener('play', event => {
  for (const other of document.querySelectorAll('audio')) if (other !== event.target) other.pause();
}, true);
"""
COLUMNS = ("feature", "description", "fires %", "speech %", "non-speech %", "mean", "max", "end of text", "label", "F1")


def index_page(title: str, facts: Sequence[str], rows: Sequence[Mapping[str, Any]], links: Mapping[int, str]) -> str:
    """The table of all features; `links` are the pages of those that have one."""
    heads = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in COLUMNS)
    body = "\n".join(_index_row(row, links.get(row["feature"])) for row in rows)
    return _page(
        title,
        f"<h1>{escape(title)}</h1>\n"
        + "".join(f"<p>{escape(fact)}</p>\n" for fact in facts)
        + '<p><label>Find <input type="search" placeholder="words of a description, label or number"></label></p>\n'
        + f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>',
        SORT,
    )


def features_page(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    excerpts: Mapping[int, Sequence[Excerpt]],
    *,
    before: str | None,
    after: str | None,
) -> str:
    """Some features one below the other, with their excerpts."""
    links = ['<a href="index.html">all features</a>']
    links += [f'<a href="{escape(before)}" rel="prev">before</a>'] if before else []
    links += [f'<a href="{escape(after)}" rel="next">after</a>'] if after else []
    nav = f"<nav>{' · '.join(links)}</nav>"
    parts = [_feature(row, excerpts.get(row["feature"], ())) for row in rows]
    return _page(title, "\n".join([nav, f"<h1>{escape(title)}</h1>", *parts, nav]), PLAY)


def _page(title: str, content: str, script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src 'self' file:; "
        "media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{content}\n</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _index_row(row: Mapping[str, Any], link: str | None) -> str:
    feature = str(int(row["feature"]))
    name = f'<a href="{escape(link)}">{feature}</a>' if link else feature
    fires = [
        _cell(row["fires"][key], percent(row["fires"][key], 2)) for key in ("all", "kind:speech", "kind:nonspeech")
    ]
    effect = None if row["end_of_text"] is None else row["end_of_text"]["per_unit"]
    best = row["best_labels"][0] if row["best_labels"] else None
    cells = [
        f'<td data-v="{feature}">{name}</td>',
        f"<td>{escape(row['description'])}</td>",
        *fires,
        _cell(row["mean_when_firing"], number(row["mean_when_firing"], 2)),
        _cell(row["max"], number(row["max"], 2)),
        _cell(effect, number(effect, 4)),
        f"<td>{escape(best['label']) if best else ''}</td>",
        _cell(best["f1"] if best else None, number(best["f1"], 2) if best else "-"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: float | None, text: str) -> str:
    return f'<td data-v="{-1e9 if value is None else float(value):.6g}">{text}</td>'


def _feature(row: Mapping[str, Any], excerpts: Sequence[Excerpt]) -> str:
    feature = int(row["feature"])
    fires = row["fires"]
    stats = [
        f"fires on {percent(fires['all'], 2)} % of frames ({percent(fires['kind:speech'], 2)} % of speech, "
        f"{percent(fires['kind:nonspeech'], 2)} % of the rest)",
        f"mean {number(row['mean_when_firing'], 2)}, max {number(row['max'], 2)}",
    ]
    if effect := row["end_of_text"]:
        stats.append(f"end of text {effect['per_unit']:+.4f} ± {effect['standard_error']:.4f} nats per unit")
    if row["edits"]:
        stats.append("edited: " + ", ".join(f"{edit['op']} {edit['value']:.3g}" for edit in row["edits"]))
    told = ", ".join(f"{b['label']} (F1 {b['f1']:.2f}, always {b['always']:.2f})" for b in row["best_labels"])
    if told:
        stats.append(f"tells {told}")
    highest = max((float(excerpt.trace.max(initial=0.0)) for excerpt in excerpts), default=0.0)
    clips = "\n".join(_clip(excerpt, highest) for excerpt in excerpts)
    return (
        f'<section aria-labelledby="f{feature}"><h2 id="f{feature}">Feature {feature}</h2>\n'
        f"<p>{escape(row['description'])}</p>\n"
        f'<p class="stats quiet">{escape("; ".join(stats))}</p>\n<div class="clips">{clips}</div></section>'
    )


def _clip(excerpt: Excerpt, highest: float) -> str:
    n = len(excerpt.trace)
    x = 100 * (excerpt.peak_s - excerpt.start_s + FRAME_S / 2) / (n * FRAME_S)
    points = " ".join(
        f"{100 * (t + 0.5) / n:.1f},{100 - 96 * float(value) / max(highest, 1e-9):.0f}"
        for t, value in enumerate(excerpt.trace)
    )
    seen = f'<img src="{MEDIA}/{escape(excerpt.mel)}" alt="mel spectrogram" loading="lazy">' if excerpt.mel else ""
    end_s = excerpt.start_s + n * FRAME_S
    alt = f"activation from {excerpt.start_s:.2f} to {end_s:.2f} s, highest {excerpt.activation:.2f}"
    overlay = (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{alt}">'
        f'<polyline points="{points}"/><line class="at" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="100"/></svg>'
    )
    if excerpt.sound:
        heard = f'<audio controls preload="none" src="{MEDIA}/{escape(excerpt.sound)}"></audio>'
    else:
        heard = f'<p class="quiet">No sound: {escape(excerpt.silent_because)}.</p>'
    labels = f" · {escape(', '.join(excerpt.labels))}" if excerpt.labels else ""
    credit = f'<br><span class="quiet">{escape(excerpt.credit)}</span>' if excerpt.credit else ""
    caption = f"{excerpt.activation:.2f} at {excerpt.peak_s:.2f} s in {escape(excerpt.origin)}{labels}{credit}"
    view = f'<div class="view">{seen}{overlay}</div>'
    return f'<figure class="clip">{view}{heard}<figcaption>{caption}</figcaption></figure>'
