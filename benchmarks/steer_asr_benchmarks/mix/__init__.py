"""New test sets out of clips that are there: speech over noise or music, speech in long non-speech, silence and noise
of every length, copies through a telephone or a codec.

| module | what it does |
| --- | --- |
| `recipes.py` | what can be asked for, one dataclass a recipe |
| `plan.py` | which clips, from where, at what SNR: decided by clips and seed alone |
| `levels.py` | powers, and what "SNR" means here |
| `channels.py` | telephone and codecs |
| `render.py` | the waveform of one planned item |
| `rows.py` | its line of the manifest |
| `write.py` | FLAC files, manifest, resuming |
| `command.py` | `steer-asr-bench mix` |
"""
