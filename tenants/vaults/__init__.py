"""Where the values of secrets are kept, and the one door to them."""
