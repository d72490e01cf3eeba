"""The blinded reader study: `create` makes one from real and synthetic lesions, `serve` asks readers in the browser.

In: real cases with lesion masks, a dataset. Out: a folder STUDY (see `design`) with crops and, apart from them, the
truth. Statistics and report are in `training.study`.
"""
