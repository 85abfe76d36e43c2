"""Our objects and the original's, auto-pi-lot 0.5.1, talking to each other in real processes."""
