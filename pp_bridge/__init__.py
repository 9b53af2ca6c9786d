"""Collection as an HTTP service with a live view and a page, or inside other programs."""

from pp_bridge.embed import CollectionProgress, make_collection, run_collection_in_process

__all__ = ["CollectionProgress", "make_collection", "run_collection_in_process"]
