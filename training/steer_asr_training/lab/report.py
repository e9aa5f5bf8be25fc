"""`steer-asr-train report`: the results of a run as one HTML page, which needs nothing else, and as Markdown.

    write_report("runs/lab-base", "report")      # report.html; report.md with pictures/*.png

The page loads nothing: pictures are SVG inside of it, there is no script, and text from result files is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from steer_asr._files import atomic_path, write_text
from steer_asr_training.analysis.tables import grid
from steer_asr_training.lab.pictures import render
from steer_asr_training.lab.results import Results, publish, read_results
from steer_asr_training.lab.section import Section, Table
from steer_asr_training.lab.sections import sections

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"
OPEN_ROWS = 12
"""Tables of more rows are folded."""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
nav ul { columns: 3 12rem; padding-left: 1.2rem; } figure { margin: 1.5rem 0; overflow-x: auto; }
figure svg { width: 100%; height: auto; max-height: 44rem; } figcaption { font-size: .9rem; opacity: .85; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--soft); } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
.missing { border-left: 4px solid #b8a228; padding-left: .8rem; }
@media print { body { max-width: none; } details > * { display: block; } h2 { break-after: avoid; }
  figure { break-inside: avoid; } nav { display: none; } }
"""


def write_report(run: str | Path, out: str | Path, *, results_too: bool = False) -> Path:
    """Writes `report.html` and `report.md` into `out`, and with `results_too` a small copy of the results.

    Raises `SteerOptionError` for a folder without results, or with a broken one.
    """
    results, out = read_results(run), Path(out)
    made = sections(results)
    facts = run_facts(results)
    drawn = {picture.name: render(picture) for section in made for picture in section.pictures}
    svgs = {name: svg for name, (svg, _) in drawn.items()}
    write_text(out / HTML_FILE, html_page(f"SAE report: {_name(results)}", facts, made, svgs, results.not_shown))
    for name, (_, png) in drawn.items():
        with atomic_path(out / "pictures" / f"{name}.png") as temporary:
            temporary.write_bytes(png)
    write_text(out / MARKDOWN_FILE, markdown_page(f"SAE report: {_name(results)}", facts, made))
    if results_too:
        publish(results, out)
    return out / HTML_FILE


def run_facts(results: Results) -> list[tuple[str, str]]:
    """What was run on what, in words."""
    facts: list[tuple[str, str]] = [("layers", ", ".join(results.points))]
    if quality := results.of("quality"):
        first = next(iter(quality.values()))
        frames = first["all"]["frames"]
        seen = f"{first['windows']} windows, {frames} frames ({frames / 3000:.0f} minutes) that hear audio"
        facts += [("measured on", seen), ("features", f"{first['n_features']} per layer")]
    if results.lab is None:
        return facts
    recipe, jobs = results.lab["recipe"], results.lab["jobs"]
    fit = recipe["fit"]
    trained = (
        f"{fit['kind']}, k {fit['k']:g}, {fit['steps']} steps of {fit['batch_frames']} frames, lr {fit['lr']:g}; "
        f"seeds {', '.join(str(seed) for seed in recipe['seeds'])}"
    )
    made_with = ", ".join(f"{name} {version}" for name, version in results.lab["made_with"].items())
    hours = sum(job["seconds"] for job in jobs.values()) / 60
    return [
        ("model", Path(recipe["model"]).name),
        *facts,
        ("fitted", trained),
        ("time", f"{hours:.0f} minutes in {len(jobs)} jobs"),
        ("made with", made_with),
    ]


def html_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    made: Sequence[Section],
    svgs: Mapping[str, str],
    not_shown: Sequence[str] = (),
) -> str:
    """The whole page; `svgs` are the pictures by name."""
    parts = [f"<h1>{escape(title)}</h1>", "<dl>"]
    parts += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts]
    parts += ["</dl>", '<nav aria-label="Sections"><ul>']
    parts += [f'<li><a href="#{escape(s.key)}">{escape(s.title)}</a></li>' for s in made]
    parts.append("</ul></nav>")
    if not_shown:
        listed = ", ".join(f"<code>{escape(name)}</code>" for name in not_shown)
        parts.append(f'<p class="missing">Not shown, since another file says the same of the same layer: {listed}.</p>')
    parts += [_html_section(section, svgs) for section in made]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def markdown_page(title: str, facts: Sequence[tuple[str, str]], made: Sequence[Section]) -> str:
    """The same in Markdown, with pictures beside it."""
    parts = [f"# {title}\n", "\n".join(f"- {name}: {value}" for name, value in facts) + "\n"]
    for section in made:
        parts.append(f"## {section.title}\n\n{section.text}\n")
        parts += [
            f"![{picture.alt}](pictures/{picture.name}.png)\n\n{picture.caption}\n" for picture in section.pictures
        ]
        parts += [f"### {t.title}\n\n{grid(t.rows)}\n" + (f"\n{t.note}\n" if t.note else "") for t in section.tables]
        if section.is_empty:
            parts.append(f"No data. Made by `{section.make}`.\n")
        parts += [f"Left out: {why}\n" for why in section.missing]
    return "\n".join(parts)


def _html_section(section: Section, svgs: Mapping[str, str]) -> str:
    key = escape(section.key)
    parts = [
        f'<section id="{key}" aria-labelledby="{key}-title">',
        f'<h2 id="{key}-title">{escape(section.title)}</h2>',
    ]
    parts.append(f"<p>{_code(section.text)}</p>")
    for picture in section.pictures:
        parts.append(f"<figure>{svgs[picture.name]}<figcaption>{escape(picture.caption)}</figcaption></figure>")
    parts += [_html_table(table) for table in section.tables]
    if section.is_empty:
        parts.append(f'<p class="missing">No data. Made by <code>{escape(section.make)}</code>.</p>')
    parts += [f'<p class="missing">Left out: {escape(why)}</p>' for why in section.missing]
    return "\n".join([*parts, "</section>"])


def _html_table(table: Table) -> str:
    head, *rows = table.rows
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    shown = f'<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    opened = " open" if len(rows) <= OPEN_ROWS else ""
    return f"<details{opened}><summary>{escape(table.title)}</summary>{shown}{note}</details>"


def _code(text: str) -> str:
    """Escaped text in which `words` between backticks are code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _name(results: Results) -> str:
    recipe: dict[str, Any] = results.lab["recipe"] if results.lab else {}
    return str(recipe.get("name") or results.folder.resolve().name)
