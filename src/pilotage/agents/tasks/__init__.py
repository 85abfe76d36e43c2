"""The tasks that ship; each is loaded only when it is asked for."""
