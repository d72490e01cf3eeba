"""Engines: ways to make the form of a tumor, one file each; `registry` names them all.

An engine module holds the record of its drawn parameters, how `pipeline.spec` draws them, how far they reach, and the
depth field that they mean. Everything else about a tumor (soft edge, room, tissue, effects, labels) is common.
"""
