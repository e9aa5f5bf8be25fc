"""The demo: a few clips transcribed stock and steered, as a table, a picture and a page.

python -m steer_asr_benchmarks.demo                  # Whisper tiny.en with its shipped pack, into out/demo
"""
