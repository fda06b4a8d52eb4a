"""A tenant's secrets: their names, versions and states. Their values are in the vaults."""
