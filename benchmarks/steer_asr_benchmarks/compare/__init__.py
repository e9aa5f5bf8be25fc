"""Two results, paired: what changes from A to B on the same clips.

    found = compare(Side.read("results/base"), Side.read("results/base-beam5"))
    found = compare(Side.read("results/base:stock"), Side.read("results/base:steered"))
    print(markdown(found))

Clips are paired by their name and the decoding mode; only pairs count, on both sides. Everything is counted anew from
predictions.jsonl, so one normaliser reads both. Differences are B minus A.

| module | what it does |
| --- | --- |
| `sides.py` | reads one folder |
| `paired.py` | differences of two systems, with intervals |
| `folders.py` | pairs the systems of two folders; says what stands between them |
| `table.py` | the comparison for people |
| `matrix.py` | one pair of systems under many conditions |
| `command.py`, `matrix_command.py` | `steer-asr-bench compare` and `matrix` |
"""
