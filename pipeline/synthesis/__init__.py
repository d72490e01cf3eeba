"""Synthesis: applying a spec to a healthy case. Pure array functions, no I/O, any torch device.

Nothing is drawn while a spec is applied. An engine module (`pipeline.synthesis.engines`) also holds how its record is
drawn, so that an engine is one file; that `draw_form` is called by `pipeline.spec` only, with the generator passed in.
"""

from pipeline.synthesis.render import Instance, Rendered, confined_to, render, render_batch, synthesise

__all__ = ["Instance", "Rendered", "confined_to", "render", "render_batch", "synthesise"]
