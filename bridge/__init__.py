"""SERVES: an HTTP interface, a live view and a page for collecting demonstrations."""
