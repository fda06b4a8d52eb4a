"""What every part of the REST API shares: the base view, checked fields, pages."""
