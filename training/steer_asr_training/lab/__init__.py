"""The SAE laboratory: every analysis of `steer_asr_training.analysis` over all layers and seeds, and its report.

| module | content |
| --- | --- |
| `recipe.py` | one YAML file that says which audio, layers, seeds and analyses |
| `layout.py` | where a run keeps what, and how results are found again |
| `run.py` | `lab`: collect once, fit all, analyse all; resumable |
| `estimate.py` | how long that will take on this machine |
| `results.py` | the JSON files of a run (or of single commands), by layer |
| `sections.py`, `pictures.py`, `report.py` | `report`: one HTML page and one Markdown file with all of it |
| `excerpts.py`, `browser.py`, `browser_page.py` | `browse`: static pages of features, to look at and hear |
| `commands.py` | the command lines |

What it does and where it differs from the paper: docs/lab.md.
"""
