"""How fast dictionaries are trained, here and by other libraries: `steer-asr-train speed`."""
