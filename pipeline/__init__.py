"""What a sample is and how it is stored."""

__version__ = "0.5.0"
