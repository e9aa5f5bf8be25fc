"""Training side of steer_asr: activations, sparse autoencoders, and steer packs learned from them."""
