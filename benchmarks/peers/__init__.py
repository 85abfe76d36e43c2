"""One module a peer: sender, router or station, and receiver, each a process of its own."""
