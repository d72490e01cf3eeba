"""Synthesis: applying a spec to a healthy case. Pure array functions, no I/O, no draws, any torch device."""

from pipeline.synthesis.render import Instance, Rendered, render, render_batch, synthesise

__all__ = ["Instance", "Rendered", "render", "render_batch", "synthesise"]
