"""Datasets in object stores: files, synchronisation, leases."""
