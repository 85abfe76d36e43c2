"""The demo: a whole experiment on one computer, and the check of what it stored against its sources."""
