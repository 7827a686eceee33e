"""What every room needs and that knows nothing of networks: errors, files, hosts, devices."""
