"""Do the features of a dictionary follow what a listener's brain does? Feature envelopes against EEG.

| module | content |
| --- | --- |
| `pairs.py` | which recording goes with which audio: a JSON Lines file, BIDS, or Broderick's .mat files |
| `recordings.py` | EEG in memory, from .mat or anything that MNE reads: reference, bad channels, 1-8 Hz at 128 Hz |
| `signals.py` | the filter, the sampling rate and the units that EEG and features share |
| `envelopes.py` | the audio inside the encoder: feature envelopes, a random SAE's, the acoustic envelope |
| `trf.py` | temporal response functions, leave one trial out, lambda chosen inside the training trials |
| `nulls.py` | the same with stimulus and EEG apart; p-values and Holm-Bonferroni |
| `study.py` | all of it over listeners and layers, as one report |
| `channel_map.py` | scores of the best features at every channel |
| `simulate.py` | EEG with known coupling: what a study of some size would find |
| `tables.py`, `picture.py`, `commands.py` | Markdown, pictures and command lines |

What each number means and where it comes from: docs/eeg.md. No recording is part of the project.
"""
