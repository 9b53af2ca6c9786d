"""SERVES: a collection by HTTP, a live view and a page; and a way to collect in other programs."""

from pp_bridge.embed import CollectionProgress, make_collection, run_collection_in_process

__all__ = ["CollectionProgress", "make_collection", "run_collection_in_process"]
