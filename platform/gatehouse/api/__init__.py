"""Glue between the REST framework and Gatehouse: authentication, parsing, errors."""
