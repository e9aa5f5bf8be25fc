"""The page at `/ui`: stock and steered Whisper side by side, on one recording.

`routes` serves the page and answers it; `memory` and `picture` work in the replica, `static` is what the browser loads.
"""
