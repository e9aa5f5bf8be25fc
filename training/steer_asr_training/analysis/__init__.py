"""What a dictionary has learned: how well it reconstructs, whether another seed finds the same, what features mean.

| module | content |
| --- | --- |
| `inputs.py` | the SAE or pack under study, and the windows of audio that it is shown |
| `labels.py` | what is known of a window: speech, source, category, label, domain |
| `activations.py` | sparse feature activations, and one table of what fired in which window |
| `quality.py` | `evaluate`: explained variance, L0, alive features, densities, duplicates, a random SAE |
| `splice.py` | `evaluate --model`: what Whisper writes when the reconstruction replaces the activations |
| `stability.py` | `stability`: features of two SAEs matched by when they fire and by direction |
| `features.py` | `features`: statistics, top windows and effect of every feature |
| `end_of_text.py` | how far each decoder direction moves Whisper towards ending its text |
| `acoustics.py` | loudness, brightness, noisiness and onsets of the audio where a feature is strongest |
| `describe.py` | a line of plain words per feature, from labels and acoustics |
| `search.py` | `search`: the features that tell best which windows carry a label |
| `alignments.py`, `aligned.py` | files of forced aligners; frames whose phones are known, and splits by speaker |
| `phonemes.py` | `phonemes`: which features stand for which phone |
| `targets.py`, `probes.py` | `probe`: how few features tell a label, a column of the manifest or a phone |
| `erasure.py` | `erase`: how many features have to go before a concept cannot be told |
| `boundaries.py` | `boundaries`: features that mark where speech starts and ends |
| `concept_tables.py`, `concept_commands.py` | files, Markdown, pictures and command lines of these |
| `tables.py`, `commands.py` | files, Markdown and command lines |

What each number means and where it comes from: docs/features.md.
"""
