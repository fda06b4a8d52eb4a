"""The command-line client `gatehouse`. Standard library only: it starts in a blink, on any machine with Python."""
