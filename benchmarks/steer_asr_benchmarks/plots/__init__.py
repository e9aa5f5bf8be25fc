"""Pictures of a report, as PNG and SVG: `draw_pictures(report, folder)`.

| module | picture |
| --- | --- |
| `pareto.py` | text on non-speech against change in WER, one marker per system, one panel per mode |
| `sources.py` | text on non-speech by source |
| `strata.py` | text, missed speech and WER against SNR; text and missed speech against duration |
| `style.py` | fonts, colours, and files that are the same for the same report |
| `layout.py` | where heading, key and panels stand |
| `labels.py` | names beside markers, without overlaps |
| `pictures.py` | draws all that the report has the numbers for |
| `command.py` | `steer-asr-bench plot` |

They need matplotlib and nothing else of a run but its report.json.
"""
