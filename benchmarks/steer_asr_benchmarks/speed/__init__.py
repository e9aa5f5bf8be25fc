"""`steer-asr-bench speed`: what steering costs, and what it saves, side by side in one run."""
