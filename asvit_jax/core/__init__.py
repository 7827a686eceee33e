"""Foundations that know nothing of networks: errors, files, hosts, devices and command lines."""
