"""Steering as weights: the parts of `steer_asr.compile`."""
