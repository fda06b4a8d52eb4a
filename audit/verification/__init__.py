"""Checks the ledger against its signatures, whatever somebody with all rights on the database did to its tables."""
