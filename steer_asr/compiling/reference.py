"""The model in torch, as compiling and verifying need it: residuals, the encoder's output, an answer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

from steer_asr.compiling.answer import Answer, find_answer, prompts
from steer_asr.models import ModelFiles
from steer_asr.pack import SteerPack
from steer_asr.steering import audio_frames, steer_frames
from steer_asr.weights.convert import hf_from_ct2, read_json

MEL_FRAMES = 3000


class Reference:
    """transformers' Whisper with the weights of a CTranslate2 directory, behind faster-whisper's front-end."""

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.model = hf_from_ct2(files.path)
        self._features = FeatureExtractor(feature_size=self.model.config.num_mel_bins)

    def mel(self, samples: np.ndarray) -> np.ndarray:
        """float32 [n_mels, 3000] of 16-kHz samples, of which 30 s count."""
        return pad_or_trim(self._features(samples)[..., :MEL_FRAMES]).astype(np.float32)

    def encode(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residual before the encoder's last LayerNorm, and the output after it, both float32 [frame, d]."""
        encoder = self.model.model.encoder
        caught: list[torch.Tensor] = []
        hook = encoder.layer_norm.register_forward_hook(lambda _module, inputs, _output: caught.append(inputs[0]))
        try:
            with torch.inference_mode():
                output = encoder(torch.from_numpy(self.mel(samples))[None]).last_hidden_state
        finally:
            hook.remove()
        return caught[0][0].numpy(), output[0].numpy()

    def residual(self, samples: np.ndarray) -> np.ndarray:
        return self.encode(samples)[0]

    def steered(self, samples: np.ndarray, pack: SteerPack, strength: float) -> tuple[np.ndarray, bool, float]:
        """The live edit of the encoder's output; whether nobody speaks; the highest weight of the edit."""
        x = self.encode(samples)[1].copy()
        report = steer_frames(x, pack, strength, audio_frames(self.mel(samples)[None])[0])
        return x, report.silent, float(report.weights.max())

    @property
    def tokens(self) -> dict[str, int]:
        """Ids of the special tokens."""
        added = read_json(self.files.path / "tokenizer.json")["added_tokens"]
        return {token["content"]: int(token["id"]) for token in added}

    def answer(self) -> Answer:
        """What the decoder is to say where nobody speaks."""
        return find_answer(self.model, self.tokens)

    def decoder_rows(self, sounds: Iterable[np.ndarray]) -> np.ndarray:
        """The decoder's residual before its last LayerNorm, at all positions of the prompts, float32 [position, d]."""
        tokenizer = Tokenizer.from_file(str(self.files.path / "tokenizer.json"))
        asked = prompts(self.tokens, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
        caught: list[torch.Tensor] = []
        decoder = self.model.model.decoder
        hook = decoder.layer_norm.register_forward_hook(lambda _module, inputs, _output: caught.append(inputs[0][0]))
        try:
            for samples in sounds:
                memory = torch.from_numpy(self.encode(samples)[1])[None]
                with torch.inference_mode():
                    for ids in asked:
                        decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=memory)
        finally:
            hook.remove()
        return torch.cat(caught).numpy()
