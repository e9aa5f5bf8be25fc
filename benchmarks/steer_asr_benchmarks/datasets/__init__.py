"""Datasets as they lie on a disk: a root folder is recognised by its public layout, and nothing is ever downloaded.

    contents = read_source(Source.parse("/data/LibriSpeech::test-clean"))      # datasets.source
    contents.clips, contents.left_out

A new layout is one file beside this one and one line in `layouts.LAYOUTS`.
"""
