"""A tiny Whisper that writes what it was built to write, and a steer pack that makes it stay silent.

Real files, read by the real engine. The encoder is random. The decoder's layers pass everything through, and each
position encoding points at one token: the one that is to come next. So the text is the same for any sound, unless a
prompt moves it along. The first layer's cross-attention carries the mean of the encoder's output, which its last layer
norm holds at zero, to the token that ends the text; the pack moves that mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from steer_asr.edits import Edit
from steer_asr.models import find_model
from steer_asr.pack import FRONT_END, SteerPack, save_pack
from steer_asr.sae import SaeFeatures
from steer_asr.weights.ct2_format import ModelBin, read_model_bin, write_model_bin
from tests.steer_asr.packs import open_gate
from tests.tiny_whisper import WIDTH, write_tiny_whisper

PARTS = (" Good morning.", " Who is there?")
TEXT = "".join(PARTS).strip()
SECONDS = (0.2, 0.4)
"""Where the parts end; a recording has to be longer."""
VOICE, HUSH = 50.0, 150.0
"""Length of the position encodings, and of what a full edit adds to them."""


def write_scripted_whisper(folder: Path, *, like: Path, language: str | None = None) -> Path:
    """As `write_tiny_whisper`; `language` is what a multilingual one hears."""
    write_tiny_whisper(folder, like=like)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = read_model_bin(folder / "model.bin")
    variables = dict(model.variables)
    directions = variables["decoder/embeddings/weight"].astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    end = _token(tokens, "<|endoftext|>")
    script = _script(tokens, language)
    positions = variables["decoder/position_encodings/encodings"]
    follows = np.array([*script, *[end] * (len(positions) - len(script))])
    for name, value in variables.items():
        if name.startswith("decoder/layer_") and name.endswith("weight"):
            variables[name] = np.zeros_like(value)
    variables["decoder/position_encodings/encodings"] = VOICE * directions[follows]
    variables["decoder/layer_norm/gamma"] = np.full(WIDTH, 20, np.float32)  # makes it sure of each token
    cross = "decoder/layer_0/attention"
    variables[f"{cross}/linear_1/weight"][WIDTH:] = 1 / WIDTH  # values, below the keys
    variables[f"{cross}/linear_2/weight"] = HUSH * np.repeat(directions[end][:, None] / WIDTH, WIDTH, axis=1)
    write_model_bin(folder / "model.bin", ModelBin(variables, model.aliases, model.spec_name, model.spec_revision))
    return folder


def write_silencing_pack(folder: Path, model: Path, *, sha256: str) -> Path:
    """A pack for the model above. Its one feature always fires, and its edit moves the encoder output's mean by 1."""
    pack = SteerPack(
        name=folder.name,
        base_model=model.name,
        base_sha256=sha256,
        hook_point="encoder.output",
        front_end=FRONT_END,
        feature_ids=(7,),
        features=SaeFeatures(
            W_enc=np.zeros((WIDTH, 1), np.float32),
            b_enc=np.ones(1, np.float32),
            W_dec=np.ones((1, WIDTH), np.float32),
            b_dec=np.zeros(WIDTH, np.float32),
            threshold=np.full(1, 0.5, np.float32),
        ),
        edits=(Edit(7, "add", 1.0),),
        gate=open_gate(1),
        calibration=({"strength": 0.25, "changed_words": 0.0}, {"strength": 0.75, "changed_words": 0.5}),
    )
    return save_pack(pack, folder, card="# A pack for tests")


def installed(name: str) -> Path:
    return find_model(name, local_files_only=True).path


def _script(tokens: Tokenizer, language: str | None) -> list[int]:
    """The token that follows each position, from the start of the transcript on."""
    start = _token(tokens, "<|notimestamps|>") + 1  # <|0.00|>
    times = [start, *(start + round(second / 0.02) for second in SECONDS)]
    script = []
    for part, begins, ends in zip(PARTS, times, times[1:], strict=False):
        script += [begins, *tokens.encode(part, add_special_tokens=False).ids, ends]
    return script if language is None else [_token(tokens, f"<|{language}|>"), start, *script]


def _token(tokens: Tokenizer, text: str) -> int:
    found = tokens.token_to_id(text)
    assert found is not None, text
    return found
