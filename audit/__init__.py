"""What happened: events, their codes and their risk. The audit records and judges; it never acts."""
