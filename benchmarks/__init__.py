"""Side-by-side measurements on loopback; `python -m benchmarks.run` compares all peers."""
