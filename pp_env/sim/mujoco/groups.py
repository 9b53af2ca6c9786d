"""What a geom is for, by its group.

Visible geoms need not cast shadows: simpler shapes, those that collide, cast nearly the same.
"""

VISIBLE_AND_CASTING, VISIBLE, CASTING, HIDDEN = 0, 2, 3, 4
VISIBLE_GROUPS = (VISIBLE_AND_CASTING, VISIBLE)
CASTING_GROUPS = (VISIBLE_AND_CASTING, CASTING)
