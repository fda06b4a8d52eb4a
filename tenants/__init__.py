"""Who uses Gatehouse: tenants, their members, API keys and quotas."""
