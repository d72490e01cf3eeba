"""Engines: ways to make the form of a tumor, one file each, named after it. `registry` finds them by their file names.

An engine module holds the record of its drawn parameters, how they are drawn (`draw_form`, called by `pipeline.spec`
only, with the sample's generator passed in), how far they reach, and the depth field that they mean. Everything else
about a tumor (soft edge, room, tissue, effects, labels) is common. Modules with a leading underscore are parts of
engines.
"""
